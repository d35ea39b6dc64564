"""The first layer: raw episodes, which nothing changes once they are stored. Knows no lessons."""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, Final

from experience_bank.codec import blob_row, digest, episode_from, episode_row, packed, turn_row, unpacked
from experience_bank.layer import Layer, among, chunks, where
from experience_bank.store import Row, Store
from opcd_agents.errors import UsageError
from opcd_agents.types import Episode, Outcome, Split

_READ_AT_ONCE: Final = 64
_TURNS: Final = """SELECT t.*, b.content FROM turns t LEFT JOIN blobs b ON b.id = t.admissible
    WHERE episode_id IN ({}) ORDER BY episode_id, number"""


class EpisodeLayer(Layer):
    """Episodes in, episodes out."""

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
        ids: list[str] = []
        played: list[Row] = []
        turns: list[Row] = []
        blobs: dict[Any, Row] = {}
        for episode in episodes:
            row, rows = episode_row(episode, role), [turn_row(turn) for turn in episode.turns]
            ids.append(self._ids.new())
            played.append({"id": ids[-1], "digest": digest(row, rows), **row})
            turns += [{"episode_id": ids[-1], "number": number, **turn} for number, turn in enumerate(rows)]
            blobs |= {
                row["id"]: row for turn in episode.turns if turn.admissible for row in [blob_row(turn.admissible)]
            }

        def add() -> list[str]:
            # In one order, whoever writes: two that share blobs would wait for each other otherwise.
            self._store.insert("blobs", [blobs[key] for key in sorted(blobs)], known="skip")
            self._store.insert("episodes", played)
            self._store.insert("turns", turns)
            return ids

        return self._store.transact(add)

    def episode_ids(
        self,
        scope: str | None = None,
        split: Split | None = None,
        role: str | None = None,
        outcome: Outcome | None = None,
    ) -> list[str]:
        """The ids of episodes, in order; None means any."""
        clause, values = where({"scope": scope, "split": split, "role": role, "outcome": outcome})
        return [row["id"] for row in self._store.rows(f"SELECT id FROM episodes{clause} ORDER BY id", values)]

    def roles(self) -> dict[str, str]:
        """Episode id -> who played: `student`, `teacher`, `random`, `human`."""
        return {row["id"]: unpacked(row["role"]) for row in self._store.rows("SELECT id, role FROM episodes")}

    def to_learn_from(self, scope: str) -> list[tuple[str, Episode]]:
        """The train episodes on a scope, to learn from.

        Raises:
            UsageError: The task of one also stands here as validation or test: what it taught would be judged by itself.
        """
        wrong = set(self.two_sided())
        found = list(self.episodes(scope, Split.TRAIN))
        if clash := [key for key, _ in found if key in wrong]:
            raise UsageError(
                f"{len(clash)} train episodes on {scope} are of tasks that stand here as validation or test too "
                f"({', '.join(clash[:3])}); remove the false ones with `opcd bank forget ID`"
            )
        return found

    def two_sided(self) -> list[str]:
        """Ids of the train episodes whose task also stands here as validation or test."""
        sql = """SELECT id FROM episodes WHERE split = ? AND fingerprint IN
            (SELECT fingerprint FROM episodes WHERE split <> ?) ORDER BY id"""
        return [row["id"] for row in self._store.rows(sql, [str(Split.TRAIN)] * 2)]

    def fingerprints(self) -> dict[str, str]:
        """Episode id -> fingerprint of its task."""
        rows = self._store.rows("SELECT id, fingerprint FROM episodes")
        return {row["id"]: unpacked(row["fingerprint"]) for row in rows}

    def episodes(
        self,
        scope: str | None = None,
        split: Split | None = None,
        role: str | None = None,
        outcome: Outcome | None = None,
    ) -> Iterator[tuple[str, Episode]]:
        """(id, episode) in the order of ids; None means any."""
        for keys in chunks(self.episode_ids(scope, split, role, outcome), _READ_AT_ONCE):
            yield from self._load_episodes(keys)

    def episode(self, name: str) -> tuple[str, Episode]:
        """(id, episode) of an id or the beginning of one.

        Raises:
            UnknownNameError: No id begins so.
            UsageError: Several ids begin so.
        """
        if not (row := self._store.rows("SELECT * FROM episodes WHERE id = ?", [packed(name)])):
            row = [self._find("episodes", "episode", name)]
        key = row[0]["id"]
        return key, episode_from(row[0], among(self._store, _TURNS, [key]))

    def verify(self) -> list[str]:
        """Ids of the episodes whose content no longer matches the digest it was stored with."""
        found: list[str] = []
        for keys in chunks(self.episode_ids(), _READ_AT_ONCE):
            found += [row["id"] for row, turns in raw(self._store, keys) if not is_whole(row, turns)]
        return found

    def _load_episodes(self, keys: Sequence[str]) -> list[tuple[str, Episode]]:
        return [(row["id"], episode_from(row, turns)) for row, turns in raw(self._store, keys)]


def raw(store: Store, keys: Sequence[str]) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Episodes and their turns as they are stored, each turn with the `content` of its blob."""
    played = among(store, "SELECT * FROM episodes WHERE id IN ({}) ORDER BY id", keys)
    turns = groupby(among(store, _TURNS, keys), key=lambda turn: turn["episode_id"])
    by_episode = {key: list(rows) for key, rows in turns}
    return [(row, by_episode.get(row["id"], [])) for row in played]


def is_whole(row: dict[str, Any], turns: Sequence[dict[str, Any]]) -> bool:
    """Whether an episode and the blobs it names match their digests."""
    try:
        blobs = {turn["admissible"]: turn["content"] for turn in turns if turn["admissible"]}
        kept = all(blob_row(json.loads(content))["id"] == key for key, content in blobs.items())
        return kept and digest(row, turns) == row["digest"]
    except (TypeError, ValueError):
        return False
