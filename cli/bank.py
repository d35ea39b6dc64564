"""`opcd bank`: what a bank holds, and one thing in it in full. Its other commands are in the modules it adds. Knows no environment."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated, Any

import typer

from cli import bank_judge, bank_keep, bank_make, bank_merge, bank_trade
from cli.bank_make import show_context
from cli.console import say, say_json, say_table
from cli.options import Bank_, Json
from experience_bank import Bank
from opcd_agents.errors import UnknownNameError, UsageError
from opcd_agents.types import Context, Episode, Lesson, Turn

app = typer.Typer(no_args_is_help=True)
app.add_typer(bank_make.app)
app.add_typer(bank_judge.app)
app.add_typer(bank_merge.app)
app.add_typer(bank_keep.app)
app.add_typer(bank_trade.app)

_BANK = "bank.db"


class Kind(StrEnum):
    """What `ls` can list."""

    EPISODES = "episodes"
    LESSONS = "lessons"
    CONTEXTS = "contexts"


@app.callback(epilog="Example: opcd bank ls lessons")
def bank() -> None:
    """Look into a bank, and make notes (a context) from its episodes."""


@app.command(epilog="Example: opcd bank ls lessons --bank runs/first/bank.db")
def ls(
    kind: Annotated[Kind, typer.Argument(help="What to list.")] = Kind.EPISODES,
    bank: Bank_ = _BANK,
    as_json: Json = False,
) -> None:
    """Count what is there and list the episodes, lessons or contexts."""
    with Bank.open(bank, "r") as opened:
        counts, rows = opened.counts(), _LISTS[kind](opened)
    if as_json:
        say_json({"counts": counts, str(kind): rows})
        return
    say(", ".join(f"{number} {what}" for what, number in counts.items()))
    if rows:
        heads = [f"{head}>" if isinstance(value, int) else head for head, value in rows[0].items()]
        say_table(heads, [list(row.values()) for row in rows])


@app.command(epilog="Example: opcd bank show house/7")
def show(
    name: Annotated[str, typer.Argument(metavar="ID", help="Id of an episode, lesson or context, or its beginning.")],
    bank: Bank_ = _BANK,
    as_json: Json = False,
) -> None:
    """Show an episode, a lesson or a context in full.

    An episode turn by turn, a lesson with the turns that taught it.
    """
    with Bank.open(bank, "r") as opened:
        found = _find(opened, name)
        if as_json:
            say_json(_data(found))
        elif isinstance(found[1], Episode):
            _show_episode(found[0], found[1])
        elif isinstance(found[1], Lesson):
            _show_lesson(found[0], found[1], opened)
        else:
            show_context(found[1])


def _episode_rows(bank: Bank) -> list[dict[str, Any]]:
    roles = bank.roles()
    return [
        {
            "id": key,
            "scope": e.task.scope,
            "split": str(e.task.split),
            "model": e.provenance.model,
            "role": roles[key],
            "context": e.provenance.context_id or "",
            "outcome": str(e.outcome),
            "turns": len(e.turns),
            "optimum": e.task.optimal,
        }
        for key, e in bank.episodes()
    ]


def _lesson_rows(bank: Bank) -> list[dict[str, Any]]:
    now = bank.statuses()
    return [
        {
            "id": key,
            "scope": x.scope,
            "kind": x.kind,
            "statement": x.statement,
            "evidence": len(x.evidence),
            "status": str(now[key]),
        }
        for key, x in bank.lessons(status=None)
    ]


def _context_rows(bank: Bank) -> list[dict[str, Any]]:
    return [
        {"id": c.id, "scope": c.scope, "version": c.version, "source": c.source, "tokens": c.tokens}
        for c in bank.contexts()
    ]


_LISTS: dict[Kind, Callable[[Bank], list[dict[str, Any]]]] = {
    Kind.EPISODES: _episode_rows,
    Kind.LESSONS: _lesson_rows,
    Kind.CONTEXTS: _context_rows,
}

Found = tuple[str, Episode | Lesson | Context]


def _find(bank: Bank, name: str) -> Found:
    """Whatever `name` is the beginning of; what is ambiguous is an error of the bank."""
    looks: Sequence[Callable[[str], Found]] = (bank.episode, bank.lesson, lambda n: ("", bank.context(n)))
    found: list[Found] = []
    for look in looks:
        try:
            found.append(look(name))
        except UnknownNameError:
            continue
    if len(found) > 1:
        kinds = ", ".join(type(thing).__name__.lower() for _, thing in found)
        raise UsageError(f"{name!r} is the beginning of several ids ({kinds}); write more of it")
    if not found:
        known = [row["id"] for rows in _LISTS.values() for row in rows(bank)[-4:]]
        raise UnknownNameError("id in this bank", name, known)
    return found[0]


def _data(found: Found) -> dict[str, Any]:
    key, thing = found
    kind = type(thing).__name__.lower()
    data = asdict(thing)
    return {"kind": kind, **({"id": key} if key else {}), **data}


def _show_episode(key: str, episode: Episode) -> None:
    task, who = episode.task, episode.provenance
    notes = f" with context {who.context_id}" if who.context_id else ""
    say(f"episode {key}: {who.model}{notes} on {task.scope} ({task.split}), {episode.outcome}", "bold")
    for number, turn in enumerate(episode.turns):
        _show_turn(number, turn)
    say(f"\n{episode.final}")
    if episode.error:
        say(f"error: {episode.error}")


def _show_turn(number: int, turn: Turn) -> None:
    tokens = f", {len(turn.sampled_ids)} tokens" if turn.sampled_ids else ""
    refused = f", refused: {turn.invalid}" if turn.invalid else ""
    say(f"\n-- turn {number}: reward {turn.reward:g}{tokens}{refused}", "dim")
    say(turn.observation)
    say(turn.reply, "bold")


def _show_lesson(key: str, lesson: Lesson, bank: Bank) -> None:
    say(f"lesson {key} ({lesson.kind}, {lesson.scope})", "bold")
    say(lesson.statement)
    for entry in bank.log(key):
        other = f" {entry.other}" if entry.other else ""
        say(f"{entry.op}{other} by {entry.actor}{': ' if entry.reason else ''}{entry.reason}", "dim")
    for episode_id, number in lesson.evidence:
        say(f"\n-- episode {episode_id}, turn {number}", "dim")
        _, episode = bank.episode(episode_id)
        for text in _around(episode, number):
            say(text)


def _around(episode: Episode, number: int) -> list[str]:
    """What the player saw in a turn; what the end showed is booked on the last turn, so that shows it too."""
    turns = episode.turns
    if number < len(turns) - 1:
        return [turns[number].observation]
    return [*(text for turn in turns[-1:] for text in (turn.observation, f"> {turn.action}")), episode.final]
