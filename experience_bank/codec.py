"""Episodes, lessons and contexts as rows of plain values, and back. Knows no connection.

Token ids are little-endian int32 blobs. Log-probs are float32 blobs: a value that float32 can hold comes
back exactly, any other comes back rounded to it. A text that UTF-8 or a server cannot hold (a lone surrogate out of
some endpoint's JSON, a NUL) is kept escaped, so that no episode is lost for it.
"""

import hashlib
import json
import math
import re
import struct
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from experience_bank.schema import EPISODE_COLUMNS, TURN_COLUMNS
from experience_bank.store import Row, Value
from opcd_agents.errors import BankError
from opcd_agents.types import Context, Episode, Lesson, Outcome, Provenance, Split, Task, Turn

_MARK: Final = "\x01"  # in front of a text that is kept as JSON
_ODD: Final = re.compile("[\0\ud800-\udfff]")
_LARGEST: Final = 1 << 63


def packed(text: str) -> str:
    """`text` as any engine can hold it."""
    if text.isascii() and "\0" not in text and text[:1] != _MARK:  # nearly every text
        return text
    return _MARK + json.dumps(text) if text.startswith(_MARK) or _ODD.search(text) else text


def unpacked(value: str) -> str:
    """The text that `packed` was given."""
    if value.startswith(_MARK):
        text = json.loads(value[len(_MARK) :])
        if isinstance(text, str):
            return text
        raise ValueError("wanted a text")
    return value


def hashed(content: Any, digits: int = 64) -> str:
    """sha256 (hex) of JSON values."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:digits]


def episode_row(episode: Episode, role: str) -> Row:
    """The episode without its turns, id and digest.

    Raises:
        BankError: `task.kwargs` are no JSON values, or a number does not fit 64 bits.
    """
    task, player = episode.task, episode.provenance
    values: Row = {
        "role": role,
        "env_id": task.env_id,
        "kwargs": as_json(task.kwargs),
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
    for value in values.values():
        if isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
            raise BankError(f"wanted numbers of at most 64 bits, got {value}")
    return _packed_row(values)


def turn_row(turn: Turn) -> Row:
    """One turn, without its episode and number; its admissible commands are named by the id of their blob.

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
        "admissible": blob_row(turn.admissible)["id"] if turn.admissible else None,
    }
    return _packed_row(values)


def blob_row(commands: Sequence[str]) -> Row:
    """Admissible commands, which many turns share, as one row that is named by its content."""
    content = json.dumps(list(commands))
    return {"id": hashlib.sha256(content.encode()).hexdigest(), "content": content}


def digest(episode: Mapping[str, Value], turns: Sequence[Mapping[str, Any]]) -> str:
    """sha256 (hex) of the canonical content of an episode's rows; their id is no part of it."""
    rows = [(episode, EPISODE_COLUMNS), *((turn, TURN_COLUMNS) for turn in turns)]
    return hashlib.sha256(b"".join(_canonical([row[c] for c in columns]) for row, columns in rows)).hexdigest()


def _canonical(values: Sequence[Value]) -> bytes:
    """Values as bytes that no others give: how many, the length of each (-1: there is none), then their contents.

    Texts are UTF-8, numbers their shortest decimal form.
    """
    parts: list[bytes] = []
    lengths: list[int] = []
    for value in values:
        part = value if isinstance(value, bytes) else value.encode() if isinstance(value, str) else _plain(value)
        parts.append(part)
        lengths.append(-1 if value is None else len(part))
    return struct.pack(f"<q{len(parts)}q", len(parts), *lengths) + b"".join(parts)


def _plain(value: float | None) -> bytes:
    return b"" if value is None else repr(value).encode()


def episode_from(row: Mapping[str, Any], turns: Sequence[Mapping[str, Any]]) -> Episode:
    """The episode that `episode_row` and `turn_row` were given.

    Args:
        row: The episode's.
        turns: The turns', each with the `content` of its blob.

    Raises:
        BankError: The rows are damaged.
    """
    with damaged("episode", row):
        return Episode(
            task=_task_from(row),
            turns=tuple(map(_turn_from, turns)),
            outcome=Outcome(row["outcome"]),
            provenance=_provenance_from(row),
            final=unpacked(row["final"]),
            error=_maybe(row["error"]),
        )


def lesson_id(lesson: Lesson) -> str:
    """First 16 hex digits of sha256 of what the lesson says; its evidence is no part of it."""
    return hashed([lesson.kind, lesson.scope, lesson.statement, sorted(lesson.facts.items())], 16)


def lesson_row(lesson: Lesson) -> Row:
    """The lesson without its evidence."""
    values: Row = {
        "id": lesson_id(lesson),
        "kind": lesson.kind,
        "scope": lesson.scope,
        "statement": lesson.statement,
        "facts": as_json(lesson.facts),
    }
    return _packed_row(values)


def lesson_from(row: Mapping[str, Any], evidence: Sequence[tuple[str, int]]) -> Lesson:
    """The lesson that `lesson_row` was given, with its evidence."""
    with damaged("lesson", row):
        kind, scope, statement = (unpacked(row[name]) for name in ("kind", "scope", "statement"))
        facts: dict[str, str] = {str(name): str(value) for name, value in from_json(row["facts"]).items()}
        return Lesson(kind, scope, statement, facts, tuple(evidence))


def context_id(text: str, renderer: str, tokenizer: str) -> str:
    """First 16 hex digits of sha256 of a context's text, of what rendered it, and of whose tokens were counted."""
    return hashlib.sha256((text + renderer + tokenizer).encode(errors="surrogatepass")).hexdigest()[:16]


def context_row(context: Context) -> Row:
    """What a context is; for whom and from what it was made stands in the log."""
    names = ("id", "text", "source", "renderer", "tokenizer", "tokens")
    return _packed_row({name: getattr(context, name) for name in names})


def context_from(row: Mapping[str, Any]) -> Context:
    """A context from its row joined with that of its making and its `version`."""
    with damaged("context", row):
        return Context(
            id=unpacked(row["id"]),
            text=unpacked(row["text"]),
            source=unpacked(row["source"]),
            version=row["version"],
            scope=unpacked(row["scope"]),
            lessons=tuple(from_json(row["lessons"])),
            tokens=row["tokens"],
            renderer=unpacked(row["renderer"]),
            tokenizer=unpacked(row["tokenizer"]),
            budget=row["budget"],
        )


@contextmanager
def damaged(kind: str, row: Mapping[str, Any]) -> Generator[None]:
    """Say which row it is that cannot be read."""
    try:
        yield
    except (ValueError, TypeError, AttributeError, KeyError, struct.error) as error:
        name = row.get("id", "?")
        raise BankError(f"{kind} {name!s:.40} is damaged ({error!r:.80}); restore a copy of the bank") from error


def as_json(value: Mapping[str, Any] | Sequence[str]) -> str:
    """JSON values as text.

    Raises:
        BankError: They are no JSON values.
    """
    try:
        return json.dumps(dict(value) if isinstance(value, Mapping) else list(value))
    except (TypeError, ValueError, RecursionError) as error:
        raise BankError(f"wanted JSON values to store, got {value!r:.80} ({error})") from error


def from_json(text: str) -> Any:
    """What `as_json` was given.

    Raises:
        BankError: The text is damaged.
    """
    try:
        return json.loads(text)
    except (ValueError, TypeError) as error:
        raise BankError(f"a damaged row: {text!r:.80} ({error}); restore a copy of the bank") from error


def _task_from(row: Mapping[str, Any]) -> Task:
    return Task(
        env_id=unpacked(row["env_id"]),
        kwargs=from_json(row["kwargs"]),
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
        prompt_ids=_numbers("i", row["prompt_ids"]),
        sampled_ids=_numbers("i", row["sampled_ids"]),
        logprobs=_numbers("f", row["logprobs"]),
        invalid=_maybe(row["invalid"]),
        admissible=tuple(from_json(row["content"])) if row["admissible"] else (),
    )


def _packed_row(values: Row) -> Row:
    return {name: packed(value) if isinstance(value, str) else value for name, value in values.items()}


def _maybe(value: str | None) -> str | None:
    return None if value is None else unpacked(value)


def _numbers(kind: str, blob: bytes) -> tuple[Any, ...]:
    return struct.unpack(f"<{len(blob) // 4}{kind}", blob)


def _ids_blob(ids: Sequence[int]) -> bytes:
    try:
        return struct.pack(f"<{len(ids)}i", *ids)
    except struct.error as error:
        raise BankError(f"wanted token ids of at most 32 bits, got {max(ids, key=abs)}") from error


def _floats_blob(values: Sequence[float]) -> bytes:
    try:
        return struct.pack(f"<{len(values)}f", *values)
    except OverflowError:  # beyond float32: infinite, as a rounding would have it
        return struct.pack(f"<{len(values)}f", *(_float32(value) for value in values))


def _float32(value: float) -> float:
    try:
        struct.pack("<f", value)
    except OverflowError:
        return math.copysign(math.inf, value)
    return value
