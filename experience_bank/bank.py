"""The bank: episodes, lessons and contexts in one SQLite file, safe for several writers at once.

What is acknowledged is durable: an id is returned only after its transaction is on disk. Knows no
environment, model or tokenizer, and does not say what a lesson is worth.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar, final

from experience_bank.codec import (
    Row,
    Value,
    context_from,
    context_row,
    digest,
    episode_from,
    episode_row,
    lesson_from,
    lesson_id,
    lesson_row,
    packed,
    turn_row,
    unpacked,
)
from experience_bank.ids import Ids
from experience_bank.store import Mode, Store
from opcd_agents.errors import BankError, UnknownNameError, UsageError
from opcd_agents.types import Context, Episode, Lesson, Split

T = TypeVar("T")

# Names listed in a message about an unknown or ambiguous one.
_SHOWN: Final = 6
_BEGINS: Final = "substr(id, 1, ?) = ?"


@final
class Bank:
    """An open bank. Use it as a context manager; one instance serves one thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._ids = Ids()

    @classmethod
    def open(cls, path: str | Path, mode: Mode = "w") -> "Bank":
        """Open the bank in the file `path`.

        Args:
            path: The file. SQLite keeps a log beside it while it is open.
            mode: "w" makes the bank if there is none; "r" never makes one and never writes to it.

        Raises:
            BankError: There is no bank there, it cannot be used, or it has another schema version.
        """
        try:
            return cls(Store.open(path, mode))
        except ValueError as error:
            raise BankError(f"{path!r} cannot be a path: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the bank; closing twice is allowed."""
        self._store.close()

    def add_episode(self, episode: Episode, role: str = "student") -> str:
        """Store one episode; it is durable when this returns.

        Args:
            episode: The episode. Log-probs are kept as float32.
            role: Who played: `student`, `teacher`, `random`, `human`.

        Returns:
            The episode's id; ids sort by time.

        Raises:
            BankError: The bank cannot be written, or the episode holds values that cannot be stored.
        """
        return self.add_episodes([episode], role)[0]

    def add_episodes(self, episodes: Iterable[Episode], role: str = "student") -> list[str]:
        """Store episodes in one transaction: all of them or none.

        Returns:
            Their ids, in order.

        Raises:
            BankError: As `add_episode`.
        """
        rows = [(episode_row(e, role), [turn_row(t) for t in e.turns]) for e in episodes]
        with self._store.writing():
            return [self._insert_episode(episode, turns) for episode, turns in rows]

    def episodes(
        self, scope: str | None = None, split: Split | None = None, role: str | None = None
    ) -> Iterator[tuple[str, Episode]]:
        """(id, episode) in the order of ids; None means any."""
        where, values = _where({"scope": scope, "split": split, "role": role})
        for row in self._store.rows(f"SELECT id FROM episodes{where} ORDER BY id", values):
            yield self._load_episode(row["id"])

    def episode(self, name: str) -> tuple[str, Episode]:
        """(id, episode) of an id or the beginning of one.

        Raises:
            UnknownNameError: No id begins so.
            UsageError: Several ids begin so.
        """
        return self._load_episode(self._find("episodes", "episode", name)["id"])

    def add_lessons(self, lessons: Iterable[Lesson]) -> list[str]:
        """Store lessons. A lesson that is there already gains the new evidence and stays one.

        Returns:
            Their ids (first 16 hex digits of sha256 of kind, scope and statement), in order.

        Raises:
            BankError: The evidence names an episode that is not in this bank; nothing is stored.
        """
        learnt = list(lessons)  # whoever makes them may want the bank meanwhile
        with self._store.writing():
            return [self._insert_lesson(lesson) for lesson in learnt]

    def lessons(self, scope: str | None = None) -> list[tuple[str, Lesson]]:
        """(id, lesson), ordered by scope, kind and statement; None means any scope."""
        where, values = _where({"scope": scope})
        rows = self._store.rows(f"SELECT * FROM lessons{where} ORDER BY scope, kind, statement", values)
        return [self._load_lesson(row) for row in rows]

    def lesson(self, name: str) -> tuple[str, Lesson]:
        """(id, lesson) of an id or the beginning of one.

        Raises:
            UnknownNameError: No id begins so.
            UsageError: Several ids begin so.
        """
        return self._load_lesson(self._find("lessons", "lesson", name))

    def add_context(self, context: Context) -> Context:
        """Store a context as the next version of its scope, or return the one stored under its id.

        Returns:
            The context as stored, with its version (from 1).
        """
        key = (packed(context.scope), packed(context.id))
        with self._store.writing():
            # One that is made again becomes the latest of its scope again.
            again = "UPDATE contexts SET serial = 1 + (SELECT max(serial) FROM contexts) WHERE scope = ? AND id = ? RETURNING *"
            if before := self._store.rows(again, key):
                return context_from(before[0])
            newest = "SELECT coalesce(max(version), 0) FROM contexts WHERE scope = ?"
            row: Row = {
                **context_row(context),
                "version": 1 + self._store.value(newest, key[:1]),
            }
            self._store.insert("contexts", row)
        return context_from(row)

    def contexts(self, scope: str | None = None) -> list[Context]:
        """The contexts, the one made last at the end; None means any scope."""
        where, values = _where({"scope": scope})
        rows = self._store.rows(f"SELECT * FROM contexts{where} ORDER BY serial", values)
        return [context_from(row) for row in rows]

    def context(self, name: str) -> Context:
        """One context.

        Args:
            name: "latest", a scope (its latest context), or an id or the beginning of one.

        Raises:
            UnknownNameError: The name stands for nothing.
            UsageError: Several contexts are meant.
        """
        stored = self.contexts()
        if name == "latest" and stored:
            return stored[-1]
        if of_scope := [c for c in stored if c.scope == name]:
            return of_scope[-1]
        found = [(f"{c.id} ({c.scope})", c) for c in stored if c.id.startswith(name)]
        known = {"latest", *(c.scope for c in stored), *(c.id for c in stored)} if stored else set[str]()
        return _only("context", name, found, known)

    def counts(self) -> dict[str, int]:
        """How many `episodes`, `turns`, `lessons` and `contexts` the bank holds."""
        tables = ("episodes", "turns", "lessons", "contexts")
        return {table: self._store.value(f"SELECT count(*) FROM {table}") for table in tables}

    def verify(self) -> list[str]:
        """Ids of the episodes whose content no longer matches the digest it was stored with."""
        return [
            row["id"]
            for row in self._store.rows("SELECT * FROM episodes ORDER BY id")
            if digest(row, self._turns(row["id"])) != row["digest"]
        ]

    def _insert_episode(self, episode: Row, turns: Sequence[Row]) -> str:
        key = self._ids.new()
        self._store.insert("episodes", {"id": key, "digest": digest(episode, turns), **episode})
        for number, turn in enumerate(turns):
            self._store.insert("turns", {"episode_id": key, "number": number, **turn})
        return key

    def _insert_lesson(self, lesson: Lesson) -> str:
        key = lesson_id(lesson)
        self._store.insert("lessons", lesson_row(lesson), clash="IGNORE")
        for episode, turn in lesson.evidence:
            link: Row = {"lesson_id": key, "episode_id": packed(episode), "turn": turn}
            try:
                self._store.insert("evidence", link, clash="IGNORE")
            except sqlite3.IntegrityError as error:
                raise BankError(
                    f"lesson {lesson.statement!r:.80} cites episode {episode!r:.40}, which is not in "
                    f"{self._store.path}; add the episode first"
                ) from error
        return key

    def _load_episode(self, key: str) -> tuple[str, Episode]:
        row = self._store.rows("SELECT * FROM episodes WHERE id = ?", [key])[0]
        return key, episode_from(row, self._turns(key))

    def _turns(self, key: str) -> list[dict[str, Any]]:
        return self._store.rows("SELECT * FROM turns WHERE episode_id = ? ORDER BY number", [key])

    def _load_lesson(self, row: dict[str, Any]) -> tuple[str, Lesson]:
        cited = self._store.rows("SELECT episode_id, turn FROM evidence WHERE lesson_id = ? ORDER BY 1, 2", [row["id"]])
        return row["id"], lesson_from(row, [(c["episode_id"], c["turn"]) for c in cited])

    def _find(self, table: str, kind: str, name: str) -> dict[str, Any]:
        begins = f"SELECT * FROM {table} WHERE {_BEGINS} ORDER BY id LIMIT {_SHOWN}"
        found = self._store.rows(begins, [len(name), packed(name)])
        newest = self._store.rows(f"SELECT id FROM {table} ORDER BY rowid DESC LIMIT {_SHOWN}")
        return _only(kind, name, [(unpacked(r["id"]), r) for r in found], [r["id"] for r in newest])


def _where(filters: Mapping[str, str | None]) -> tuple[str, list[Value]]:
    used: dict[str, Value] = {column: packed(str(value)) for column, value in filters.items() if value is not None}
    clause = " AND ".join(f"{column} = ?" for column in used)
    return f" WHERE {clause}" if used else "", list(used.values())


def _only(kind: str, name: str, found: Sequence[tuple[str, T]], known: Iterable[str]) -> T:
    """The one that was found, by its label; never a guess among several."""
    if len(found) > 1:
        labels = ", ".join(label for label, _ in found[:_SHOWN])
        more = ", .." if len(found) >= _SHOWN else ""
        raise UsageError(f"{name!r} is the beginning of several {kind}s ({labels}{more}); write more of it")
    if not found:
        raise UnknownNameError(kind, name, known)
    return found[0][1]
