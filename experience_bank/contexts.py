"""The last layer: contexts, whom they were made for, and which have proved themselves. Reads no lesson."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from experience_bank.codec import as_json, context_from, context_row, damaged, from_json, packed, unpacked
from experience_bank.layer import Layer, only, where
from experience_bank.store import Row
from opcd_agents.types import Context, Split

Counts = tuple[int, int, int, int]  # wins and episodes with the context, wins and episodes without


class _Op(StrEnum):
    MADE = "made"
    BLESSED = "blessed"


_MAKINGS: Final = """SELECT c.*, g.scope, g.lessons, g.budget, g.id AS made FROM context_log g
    JOIN contexts c ON c.id = g.context_id WHERE op = 'made' ORDER BY g.id"""


@dataclass(frozen=True)
class Validation:
    """How somebody played with a context and without it, on tasks that were in neither training nor test.

    Attributes:
        context_id: The context.
        scope: The world it was played in.
        model: Who played.
        weights: Hash of the player's weights.
        split: Which tasks.
        seed: Seed of the player's chance.
        by_task: Fingerprint -> wins and episodes with the context, wins and episodes without.
        id: Made by the bank.
    """

    context_id: str
    scope: str
    model: str
    weights: str
    split: Split
    seed: int
    by_task: Mapping[str, Counts]
    id: str = ""


class ContextLayer(Layer):
    """Contexts in, contexts out, and what they are worth."""

    def add_context(self, context: Context, reason: str = "") -> Context:
        """Store a context as the next version of its scope; one that is there already becomes the latest again.

        Args:
            context: The context.
            reason: Why it was made, for the log.

        Returns:
            The context as stored, with its version (from 1).
        """
        made: Row = {"lessons": as_json(context.lessons), "budget": context.budget}
        line = self._event(context.id, context.scope, _Op.MADE, reason) | made
        with self._store.writing():
            self._store.insert("contexts", [context_row(context)], known="skip")
            self._store.insert("context_log", [line])
        return self.contexts(context.scope)[-1]

    def contexts(self, scope: str | None = None) -> list[Context]:
        """The contexts, the one made last at the end; None means any scope. Versions count first makings."""
        made: dict[tuple[str, str], Context] = {}
        versions: dict[str, int] = {}
        for row in self._store.rows(_MAKINGS):
            key = row["scope"], row["id"]
            again = made.pop(key, None)
            if again is None:
                versions[key[0]] = versions.get(key[0], 0) + 1
            made[key] = context_from(row | {"version": again.version if again else versions[key[0]]})
        return [context for context in made.values() if scope in (None, context.scope)]

    def makings(self, scope: str) -> list[tuple[str, str]]:
        """(context id, reason) of every making of a context on a scope, the oldest first."""
        sql = "SELECT context_id, reason FROM context_log WHERE scope = ? AND op = 'made' ORDER BY id"
        return [(unpacked(r["context_id"]), unpacked(r["reason"])) for r in self._store.rows(sql, [packed(scope)])]

    def context(self, name: str) -> Context:
        """One context.

        Args:
            name: "latest", a scope (its blessed context, else its latest), or an id or the beginning of one.

        Raises:
            UnknownNameError: The name stands for nothing.
            UsageError: Several contexts are meant.
        """
        stored = self.contexts()
        if name == "latest" and stored:
            return stored[-1]
        if of_scope := [c for c in stored if c.scope == name]:
            return self.blessed(name) or of_scope[-1]
        found = [(f"{c.id} ({c.scope})", c) for c in stored if c.id.startswith(name)]
        known = {"latest", *(c.scope for c in stored), *(c.id for c in stored)} if stored else set[str]()
        return only("context", name, found, known)

    def bless(self, context: Context, reason: str) -> None:
        """Mark a context as the one to be used for its scope, until another is blessed."""
        with self._store.writing():
            self._store.insert("context_log", [self._event(context.id, context.scope, _Op.BLESSED, reason)])

    def blessed(self, scope: str) -> Context | None:
        """The context that was blessed last for a scope."""
        sql = "SELECT context_id FROM context_log WHERE scope = ? AND op = 'blessed' ORDER BY id DESC LIMIT 1"
        chosen = [row["context_id"] for row in self._store.rows(sql, [packed(scope)])]
        return next((c for c in self.contexts(scope) if [packed(c.id)] == chosen), None)

    def add_validation(self, found: Validation) -> Validation:
        """Store how a context did; returns it with its id."""
        stored = replace(found, id=self._ids.new())
        with self._store.writing():
            self._store.insert(
                "validations",
                [
                    {
                        "id": stored.id,
                        "context_id": packed(found.context_id),
                        "scope": packed(found.scope),
                        "model": packed(found.model),
                        "weights": packed(found.weights),
                        "split": str(found.split),
                        "seed": found.seed,
                        "by_task": json.dumps(dict(found.by_task), sort_keys=True),
                    }
                ],
            )
        return stored

    def validations(self, scope: str | None = None) -> list[Validation]:
        """How contexts did, the oldest first; None means any scope."""
        clause, values = where({"scope": scope})
        found: list[Validation] = []
        for row in self._store.rows(f"SELECT * FROM validations{clause} ORDER BY id", values):
            with damaged("validation", row):
                counts: dict[str, Counts] = {}
                for task, (wins, played, wins_without, played_without) in from_json(row["by_task"]).items():
                    counts[task] = wins, played, wins_without, played_without
                texts = {name: unpacked(row[name]) for name in ("context_id", "scope", "model", "weights")}
                found.append(
                    Validation(**texts, split=Split(row["split"]), seed=row["seed"], by_task=counts, id=row["id"])
                )
        return found

    def _event(self, key: str, scope: str, op: _Op, reason: str = "") -> Row:
        return {
            "id": self._ids.new(), "context_id": packed(key), "scope": packed(scope), "op": str(op), "lessons": "[]",
            "budget": 0, "reason": packed(reason),
        }  # fmt: skip
