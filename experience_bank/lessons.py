"""The second layer: lessons, what shows them, and the log of what became of them. Reads no episode.

A lesson never changes: whoever words it otherwise writes another one and says in the log that it replaces the first.
What a lesson is now (active, quarantined, retired, replaced) is what the log says last, so nothing is ever lost.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from experience_bank.codec import lesson_from, lesson_id, lesson_row, packed, unpacked
from experience_bank.layer import Layer, among, where
from experience_bank.scopes import holding
from experience_bank.store import Row
from opcd_agents.errors import BankError
from opcd_agents.types import Lesson


class Status(StrEnum):
    """What a lesson is now. Only active ones are rendered and retrieved."""

    ACTIVE = "active"
    QUARANTINED = "quarantined"
    RETIRED = "retired"
    REPLACED = "replaced"


class Op(StrEnum):
    """What the log may say of a lesson; `other` is the lesson that replaces it, or from which it stays apart.

    `BURY` is said by the bank itself: `other` is an episode that showed the lesson and was forgotten. It retires a lesson
    that no other episode shows.
    """

    ADD = "add"
    QUARANTINE = "quarantine"
    RELEASE = "release"
    RETIRE = "retire"
    RESTORE = "restore"
    REPLACE = "replace"
    APART = "apart"
    BURY = "bury"


_MEANS: Final = {
    Op.ADD: Status.ACTIVE,
    Op.RELEASE: Status.ACTIVE,
    Op.RESTORE: Status.ACTIVE,
    Op.QUARANTINE: Status.QUARANTINED,
    Op.RETIRE: Status.RETIRED,
    Op.REPLACE: Status.REPLACED,
    Op.BURY: Status.RETIRED,
}
_OWN: Final = (Op.ADD, Op.BURY)  # what only the bank itself says


@dataclass(frozen=True)
class Entry:
    """One line of the log of a lesson."""

    id: str
    op: Op
    other: str | None
    actor: str
    reason: str


class LessonLayer(Layer):
    """Lessons in, lessons out, and what becomes of them."""

    def add_lessons(
        self, lessons: Iterable[Lesson], actor: str = "extract", *, quarantined: bool = False, reason: str = ""
    ) -> list[str]:
        """Store lessons. A lesson that is there already gains the new evidence and stays one, and what it is.

        Args:
            lessons: The lessons.
            actor: Who learnt them: an extractor, an importer, a person.
            quarantined: Whether new ones wait until somebody releases them.
            reason: Why, for the log.

        Returns:
            Their ids (first 16 hex digits of sha256 of what they say), in order.

        Raises:
            BankError: The evidence names an episode that is not in this bank; nothing is stored.
        """
        learnt = list(lessons)  # whoever makes them may want the bank meanwhile
        rows = [lesson_row(lesson) for lesson in learnt]
        ids = [lesson_id(lesson) for lesson in learnt]
        op = Op.QUARANTINE if quarantined else Op.ADD

        def add() -> list[str]:
            known = {row["id"] for row in among(self._store, "SELECT id FROM lessons WHERE id IN ({})", ids)}
            self._refuse_unknown(learnt)
            self._store.insert("lessons", rows, known="skip")
            fresh = [key for key in dict.fromkeys(ids) if key not in known]
            self._write(*(self._line(key, op, None, actor, reason) for key in fresh))
            self._store.insert("evidence", _links(zip(ids, learnt, strict=True)), known="skip")
            return ids

        return self._store.transact(add)

    def lessons(self, scope: str | None = None, status: Status | None = Status.ACTIVE) -> list[tuple[str, Lesson]]:
        """(id, lesson), ordered by scope, kind and statement; None means any."""
        clause, values = where({"scope": scope})
        rows = self._store.rows(f"SELECT * FROM lessons{clause} ORDER BY scope, kind, statement, id", values)
        if status is not None:
            now = self.statuses()
            rows = [row for row in rows if now.get(row["id"]) is status]
        return self._load_lessons(rows)

    def lessons_for(self, scope: str, status: Status | None = Status.ACTIVE) -> list[tuple[str, Lesson]]:
        """(id, lesson) of all that holds for a scope: its own lessons, then those of its family, then `global` ones."""
        return [known for name in holding(scope) for known in self.lessons(name, status)]

    def lesson(self, name: str) -> tuple[str, Lesson]:
        """(id, lesson) of an id or the beginning of one, whatever its status.

        Raises:
            UnknownNameError: No id begins so.
            UsageError: Several ids begin so.
        """
        return self._load_lessons([self._find("lessons", "lesson", name)])[0]

    def statuses(self) -> dict[str, Status]:
        """Lesson id to what it is now."""
        rows = self._store.rows("SELECT lesson_id, op FROM lesson_log ORDER BY id")
        buried = {row["lesson_id"] for row in rows if row["op"] == Op.BURY}
        lost = buried - self._shown() if buried else buried
        # Who learnt a lesson after its episodes were forgotten elsewhere did not know that; who restored it did.
        passed_over = {key: Op.ADD if key in lost else Op.BURY for key in buried}
        said = (row for row in rows if row["op"] in _MEANS and row["op"] != passed_over.get(row["lesson_id"]))
        return {row["lesson_id"]: _MEANS[Op(row["op"])] for row in said}

    def log(self, name: str) -> list[Entry]:
        """All that was ever said of a lesson, the oldest first."""
        key = self._find("lessons", "lesson", name)["id"]
        rows = self._store.rows("SELECT * FROM lesson_log WHERE lesson_id = ? ORDER BY id", [key])
        return [Entry(r["id"], Op(r["op"]), r["other"], unpacked(r["actor"]), unpacked(r["reason"])) for r in rows]

    def note(self, name: str, op: Op, reason: str, actor: str = "person", other: str | None = None) -> None:
        """Say in the log what becomes of a lesson.

        Args:
            name: The lesson's id or the beginning of it.
            op: What; `ADD` and `BURY` are not for others to say.
            reason: Why.
            actor: Who says so.
            other: The other lesson, where the op has one.

        Raises:
            UnknownNameError: There is no such lesson.
            BankError: The op wants another lesson and none is named, or the other way round.
        """
        if op in _OWN or (op in (Op.REPLACE, Op.APART)) != (other is not None):
            raise BankError(f"cannot note {op!r} with {other!r} as the other lesson")
        key = self._find("lessons", "lesson", name)["id"]
        second = None if other is None else self._find("lessons", "lesson", other)["id"]
        with self._store.writing():
            self._write(self._line(key, op, second, actor, reason))

    def apart(self) -> set[frozenset[str]]:
        """The pairs of lessons of which somebody said that they are not the same."""
        rows = self._store.rows("SELECT lesson_id, other FROM lesson_log WHERE op = ?", [Op.APART])
        return {frozenset((row["lesson_id"], row["other"])) for row in rows}

    def vote(self, votes: Sequence[tuple[str, float]], source: str, about: str | None = None) -> None:
        """Say how lessons did.

        Args:
            votes: (lesson id, value): above 0 where it helped, below where it harmed.
            source: How that is known: `outcome`, `ablation`, `judge`, `human`.
            about: Id of the context or episode in which it did so.
        """
        rows: list[Row] = [
            {"id": self._ids.new(), "lesson_id": key, "source": source, "value": float(value), "about": about}
            for key, value in votes
        ]
        with self._store.writing():
            self._store.insert("votes", rows)

    def votes(self) -> Mapping[str, tuple[float, ...]]:
        """Lesson id to the values of its votes, the oldest first."""
        found: dict[str, list[float]] = defaultdict(list)
        for row in self._store.rows("SELECT lesson_id, value FROM votes ORDER BY id"):
            found[row["lesson_id"]].append(row["value"])
        return {key: tuple(values) for key, values in found.items()}

    def _line(self, key: str, op: Op, other: str | None, actor: str, reason: str) -> Row:
        return {
            "id": self._ids.new(), "lesson_id": key, "op": str(op), "other": other,
            "actor": packed(actor), "reason": packed(reason),
        }  # fmt: skip

    def _shown(self) -> set[str]:
        return {row["lesson_id"] for row in self._store.rows("SELECT DISTINCT lesson_id FROM evidence")}

    def _write(self, *lines: Row) -> None:
        self._store.insert("lesson_log", lines)

    def _refuse_unknown(self, lessons: Sequence[Lesson]) -> None:
        cited = {episode: lesson for lesson in lessons for episode, _ in lesson.evidence}
        there = {row["id"] for row in among(self._store, "SELECT id FROM episodes WHERE id IN ({})", list(cited))}
        for episode, lesson in cited.items():
            if episode not in there:
                raise BankError(
                    f"lesson {lesson.statement!r:.80} cites episode {episode!r:.40}, which is not in "
                    f"{self.name}; add the episode first"
                )

    def _load_lessons(self, rows: Sequence[dict[str, Any]]) -> list[tuple[str, Lesson]]:
        cited: dict[str, list[tuple[str, int]]] = defaultdict(list)
        links = "SELECT * FROM evidence WHERE lesson_id IN ({}) ORDER BY lesson_id, episode_id, turn"
        for link in among(self._store, links, [row["id"] for row in rows]):
            cited[link["lesson_id"]].append((link["episode_id"], link["turn"]))
        return [(row["id"], lesson_from(row, cited[row["id"]])) for row in rows]


def _links(lessons: Iterable[tuple[str, Lesson]]) -> list[Row]:
    return [
        {"lesson_id": key, "episode_id": packed(episode), "turn": turn}
        for key, lesson in lessons
        for episode, turn in lesson.evidence
    ]
