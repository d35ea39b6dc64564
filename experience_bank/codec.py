"""Episodes, lessons and contexts as rows of SQLite values, and back. Knows no connection.

Token ids are little-endian int32 blobs. Log-probs are float32 blobs: a value that float32 can hold comes
back exactly, any other comes back rounded to it. A text that UTF-8 cannot hold (a lone surrogate out of
some endpoint's JSON) is kept as bytes, so that no episode is lost for it.
"""

import hashlib
import json
import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from experience_bank.schema import EPISODE_COLUMNS, TURN_COLUMNS
from opcd_agents.errors import BankError
from opcd_agents.types import Context, Episode, Lesson, Outcome, Provenance, Split, Task, Turn

Value = str | bytes | int | float | None
Row = dict[str, Value]


def packed(text: str) -> str | bytes:
    """`text` as SQLite can hold it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="surrogatepass")
    return text


def unpacked(value: str | bytes) -> str:
    """The text that `packed` was given."""
    return value.decode(errors="surrogatepass") if isinstance(value, bytes) else value


def episode_row(episode: Episode, role: str) -> Row:
    """The episode without its turns.

    Raises:
        BankError: `task.kwargs` are no JSON values.
    """
    task, player = episode.task, episode.provenance
    values: Row = {
        "env_id": task.env_id,
        "kwargs": _as_json(task.kwargs),
        "seed": int(task.seed),
        "split": str(task.split),
        "scope": task.scope,
        "fingerprint": task.fingerprint,
        "optimal": task.optimal,
        "turn_limit": task.limit,
        "outcome": str(episode.outcome),
        "model": player.model,
        "weights": player.weights,
        "player_seed": int(player.seed),
        "code_version": player.code_version,
        "context_id": player.context_id,
        "final": episode.final,
        "error": episode.error,
    }
    return _packed_row({"role": role, **values})


def turn_row(turn: Turn) -> Row:
    """One turn.

    Raises:
        BankError: The reward is not a number, or a token id does not fit 32 bits.
    """
    if math.isnan(turn.reward):
        raise BankError("wanted a number as the reward of a turn, got nan; mend the environment")
    values: Row = {
        "observation": turn.observation,
        "reply": turn.reply,
        "action": turn.action,
        "reward": float(turn.reward) + 0.0,  # SQLite forgets the sign of -0.0: the digest must too
        "prompt_ids": _ids_blob(turn.prompt_ids),
        "sampled_ids": _ids_blob(turn.sampled_ids),
        "logprobs": _floats_blob(turn.logprobs),
        "invalid": turn.invalid,
    }
    return _packed_row(values)


def digest(episode: Mapping[str, Value], turns: Sequence[Mapping[str, Value]]) -> str:
    """sha256 (hex) of the canonical content of an episode's rows; their id is no part of it."""
    content = [
        [episode[column] for column in EPISODE_COLUMNS],
        [[turn[column] for column in TURN_COLUMNS] for turn in turns],
    ]
    return hashlib.sha256(json.dumps(content, default=bytes.hex).encode()).hexdigest()


def episode_from(row: Mapping[str, Any], turns: Sequence[Mapping[str, Any]]) -> Episode:
    """The episode that `episode_row` and `turn_row` were given.

    Raises:
        BankError: The rows are damaged.
    """
    with _damaged("episode", row):
        return Episode(
            task=_task_from(row),
            turns=tuple(map(_turn_from, turns)),
            outcome=Outcome(row["outcome"]),
            provenance=_provenance_from(row),
            final=unpacked(row["final"]),
            error=_maybe(row["error"]),
        )


def lesson_id(lesson: Lesson) -> str:
    """First 16 hex digits of sha256 of kind, scope and statement."""
    return hashlib.sha256(json.dumps([lesson.kind, lesson.scope, lesson.statement]).encode()).hexdigest()[:16]


def lesson_row(lesson: Lesson) -> Row:
    """The lesson without its evidence."""
    return _packed_row(
        {
            "id": lesson_id(lesson),
            "kind": lesson.kind,
            "scope": lesson.scope,
            "statement": lesson.statement,
            "facts": _as_json(lesson.facts),
        }
    )


def lesson_from(row: Mapping[str, Any], evidence: Sequence[tuple[str, int]]) -> Lesson:
    """The lesson that `lesson_row` was given, with its evidence."""
    with _damaged("lesson", row):
        kind, scope, statement = (unpacked(row[name]) for name in ("kind", "scope", "statement"))
        facts: dict[str, str] = {str(name): str(value) for name, value in _from_json(row["facts"]).items()}
        return Lesson(kind, scope, statement, facts, tuple(evidence))


def context_row(context: Context) -> Row:
    """The context as one row."""
    return _packed_row(
        {
            "id": context.id,
            "text": context.text,
            "source": context.source,
            "version": context.version,
            "scope": context.scope,
            "lessons": _as_json(context.lessons),
            "tokens": context.tokens,
        }
    )


def context_from(row: Mapping[str, Any]) -> Context:
    """The context that `context_row` was given."""
    with _damaged("context", row):
        return Context(
            id=unpacked(row["id"]),
            text=unpacked(row["text"]),
            source=unpacked(row["source"]),
            version=row["version"],
            scope=unpacked(row["scope"]),
            lessons=tuple(_from_json(row["lessons"])),
            tokens=row["tokens"],
        )


@contextmanager
def _damaged(kind: str, row: Mapping[str, Any]) -> Generator[None]:
    """Say which row it is that cannot be read."""
    try:
        yield
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        name = row.get("id", "?")
        raise BankError(f"{kind} {name!s:.40} is damaged ({error!r:.80}); restore a copy of the bank") from error


def _task_from(row: Mapping[str, Any]) -> Task:
    return Task(
        env_id=unpacked(row["env_id"]),
        kwargs=_from_json(row["kwargs"]),
        seed=row["seed"],
        split=Split(row["split"]),
        scope=unpacked(row["scope"]),
        fingerprint=unpacked(row["fingerprint"]),
        optimal=row["optimal"],
        limit=row["turn_limit"],
    )


def _provenance_from(row: Mapping[str, Any]) -> Provenance:
    return Provenance(
        model=unpacked(row["model"]),
        weights=unpacked(row["weights"]),
        seed=row["player_seed"],
        code_version=unpacked(row["code_version"]),
        context_id=_maybe(row["context_id"]),
    )


def _turn_from(row: Mapping[str, Any]) -> Turn:
    return Turn(
        observation=unpacked(row["observation"]),
        reply=unpacked(row["reply"]),
        action=unpacked(row["action"]),
        reward=row["reward"],
        prompt_ids=tuple(np.frombuffer(row["prompt_ids"], "<i4").tolist()),
        sampled_ids=tuple(np.frombuffer(row["sampled_ids"], "<i4").tolist()),
        logprobs=tuple(np.frombuffer(row["logprobs"], "<f4").tolist()),
        invalid=_maybe(row["invalid"]),
    )


def _packed_row(values: Row) -> Row:
    return {name: packed(value) if isinstance(value, str) else value for name, value in values.items()}


def _maybe(value: str | bytes | None) -> str | None:
    return None if value is None else unpacked(value)


def _as_json(value: Mapping[str, Any] | Sequence[str]) -> str:
    try:
        return json.dumps(dict(value) if isinstance(value, Mapping) else list(value))
    except (TypeError, ValueError, RecursionError) as error:
        raise BankError(f"wanted JSON values to store, got {value!r:.80} ({error})") from error


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, TypeError) as error:
        raise BankError(f"a damaged row: {text!r:.80} ({error}); restore a copy of the bank") from error


def _ids_blob(ids: Sequence[int]) -> bytes:
    try:
        return np.asarray(ids, dtype="<i4").tobytes()
    except OverflowError as error:
        raise BankError(f"wanted token ids of at most 32 bits, got {max(ids, key=abs)}") from error


def _floats_blob(values: Sequence[float]) -> bytes:
    with np.errstate(over="ignore"):
        return np.asarray(values, dtype="<f4").tobytes()
