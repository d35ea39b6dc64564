"""The union of two banks, and the digest that says whether two banks hold the same.

Every row stands under an id that its writer made or its content gives, so the union is that of sets: in whatever order
and however often banks are merged, the digest is the same. Two contents under one id are damage or forgery: the first
stays, the other is put in quarantine, and neither is ever overwritten. What a tombstone names is removed; see `bury`.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from experience_bank.burial import buried_by, bury, dead
from experience_bank.codec import context_id, digest, hashed, lesson_from, lesson_id, unpacked
from experience_bank.episodes import is_whole, raw
from experience_bank.layer import chunks
from experience_bank.schema import BY_NAME, TABLES, Table
from experience_bank.store import Row, Store
from opcd_agents.errors import BankError

_AT_ONCE: Final = 256
# Episodes bring their turns, turns their blobs; tombstones go first, quarantine last.
_PLAIN: Final = [table for table in TABLES if table.name not in ("episodes", "turns", "blobs", "tombstones")]
# Rows come over where what their columns name is there.
_NEEDS: Final = {"lesson_id": "lessons", "episode_id": "episodes", "context_id": "contexts"}


def bank_digest(store: Store) -> str:
    """sha256 (hex) of what a bank holds, whatever the order in which it came."""
    lines: set[str] = set()
    for table in TABLES:
        if table.name not in ("turns", "blobs"):  # the digests of their episodes cover them
            lines |= {json.dumps(_named(table, row)) for row in store.rows(f"SELECT * FROM {table.name}")}
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def merge(target: Store, source: Store) -> dict[str, int]:
    """Add what `source` holds to `target`, in one transaction.

    Returns:
        Table name to the number of rows that were new; `turns` are counted with their episodes.
    """

    def union() -> dict[str, int]:
        target.queue_up()
        fresh: Counter[str] = Counter(tombstones=0, episodes=0, turns=0)
        _plain(target, source, BY_NAME["tombstones"], fresh)
        gone = bury(target)
        _episodes(target, source, fresh)
        for table in _PLAIN:
            _plain(target, source, table, fresh)
        buried_by(target, gone | dead(source, target))
        return dict(fresh)

    return target.transact(union)


def take_episodes(target: Store, source: Store) -> dict[str, int]:
    """Add only the episodes that `source` holds, in one transaction; returns what `merge` does."""

    def union() -> dict[str, int]:
        target.queue_up()
        fresh: Counter[str] = Counter()
        _episodes(target, source, fresh)
        return dict(fresh)

    return target.transact(union)


def _episodes(target: Store, source: Store, fresh: Counter[str]) -> None:
    there = {row["id"]: row["digest"] for row in target.rows("SELECT id, digest FROM episodes")}
    gone = {row["episode_id"] for row in target.rows("SELECT episode_id FROM tombstones")}
    wanted = [
        row["id"]
        for row in source.rows("SELECT id, digest FROM episodes ORDER BY id")
        if row["id"] not in gone and there.get(row["id"]) != row["digest"]
    ]
    for keys in chunks(wanted, _AT_ONCE):
        whole: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
        for row, turns in raw(source, keys):
            if row["id"] in there:
                fresh["quarantine"] += _isolate(target, row, turns, "another episode stands under this id")
            elif is_whole(row, turns):
                whole.append((row, turns))
            else:
                fresh["quarantine"] += _isolate(target, row, turns, "does not match its digest")
        _add(target, whole)
        fresh["episodes"] += len(whole)
        fresh["turns"] += sum(len(turns) for _, turns in whole)


def _add(target: Store, episodes: Sequence[tuple[Row, Sequence[Row]]]) -> None:
    turns = [turn for _, rows in episodes for turn in rows]
    blobs = {turn["admissible"]: turn["content"] for turn in turns if turn["admissible"]}
    target.insert("blobs", [{"id": key, "content": blobs[key]} for key in sorted(blobs)], known="skip")
    target.insert("episodes", [row for row, _ in episodes])
    target.insert("turns", turns)


def _isolate(target: Store, row: Row, turns: Sequence[Row], reason: str) -> int:
    content = json.dumps([row, turns], default=bytes.hex)
    return _keep_apart(target, "episodes", str(row["id"]), digest(row, turns), content, reason)


def _keep_apart(target: Store, kind: str, name: str, found: str, content: str, reason: str) -> int:
    sql = "SELECT digest FROM quarantine WHERE kind = ? AND name = ? AND digest = ?"
    if target.rows(sql, [kind, name, found]):
        return 0
    row: Row = {"kind": kind, "name": name, "digest": found, "content": content, "reason": reason}
    target.insert("quarantine", [row])
    return 1


def _plain(target: Store, source: Store, table: Table, fresh: Counter[str]) -> None:
    """Add the rows of a table whose references are there; those that are not whole or clash with another go into quarantine."""
    there = {_key(table, row): _named(table, row)[2] for row in target.rows(f"SELECT * FROM {table.name}")}
    needed = {
        column: {row["id"] for row in target.rows(f"SELECT id FROM {_NEEDS[column]}")}
        for column in table.columns.keys() & _NEEDS.keys()
        if table.name != "tombstones"
    }
    gone = {row["episode_id"] for row in target.rows("SELECT episode_id FROM tombstones")}
    new: list[Row] = []
    for row in source.rows(f"SELECT * FROM {table.name}"):
        kind, name, found = _named(table, row)
        if any(row[column] not in keys for column, keys in needed.items()) or (kind == "episodes" and name in gone):
            continue
        known = there.get(_key(table, row))
        if known is None and _is_itself(table, row):
            new.append(row)
        elif known != found:
            reason = "does not match its id" if known is None else "another row stands under this id"
            fresh["quarantine"] += _keep_apart(target, kind, name, found, json.dumps(row), reason)
    target.insert(table.name, new, known="skip")
    fresh[table.name] += len(new)


def _is_itself(table: Table, row: Mapping[str, Any]) -> bool:
    """Whether a lesson or context is what its id says; of other rows nothing is known."""
    try:
        if table.name == "lessons":
            return lesson_id(lesson_from(row, ())) == row["id"]
        if table.name == "contexts":
            parts = [unpacked(row[name]) for name in ("text", "renderer", "tokenizer")]
            return context_id(*parts) == row["id"] or not parts[1]  # the first schema kept no renderer
    except (BankError, ValueError, AttributeError, TypeError):
        return False
    return True


def _key(table: Table, row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[column] for column in table.key)


def _named(table: Table, row: Mapping[str, Any]) -> tuple[str, str, str]:
    """(table, name, digest) of a row; the same for one in quarantine as for one that stands in its table."""
    if table.name == "quarantine":
        return row["kind"], row["name"], row["digest"]
    name = " ".join(map(str, _key(table, row)))
    return table.name, name, row["digest"] if table.name == "episodes" else hashed([row[c] for c in table.columns])
