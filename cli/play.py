"""`opcd play`: a person plays one task in the terminal, or watches a model or chance play it.

Knows how an episode looks on a terminal; what an episode is, it leaves to the rollout.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from cli.console import Progress, ask, say, say_json, tell
from cli.options import Bank_, Embed, Json, Retrieve, Seed, Tasks, check_reading
from experience_bank.reminders import When
from opcd_agents.errors import UsageError
from opcd_agents.types import Context, Episode, Info, Outcome, Policy, Reply, Session, Split, Task

app = typer.Typer()

_ENDINGS = {
    Outcome.WON: "won",
    Outcome.LOST: "lost",
    Outcome.TRUNCATED: "not solved in time",
    Outcome.FAILED: "failed",
}


class _Left(Exception):
    """The person at the terminal has had enough."""


class _Person:
    """The person at the terminal, as a policy and as its one session."""

    name = "human"
    weights = ""

    def begin(self, context: str | None, seeds: Sequence[int]) -> Session:
        """Start; a person reads the context before the first observation."""
        if context is not None:
            say(f"{context}\n", "italic")
        return self

    def reply(self, heard: Mapping[int, tuple[str, Info]]) -> dict[int, Reply]:
        """Show the observation and read a command."""
        return {slot: Reply(f"> {self._command(*seen)}") for slot, seen in heard.items()}

    def _command(self, observation: str, info: Info) -> str:
        say(observation)
        while True:
            try:
                said = ask("> ")
            except EOFError as error:
                say()
                raise _Left from error
            if said.lower() in ("quit", "exit"):
                raise _Left
            if said.lower() in ("?", "help"):
                say(", ".join(info["admissible_commands"]) or "no commands are named here", "dim")
            elif said:
                return said


class _Watched:
    """A policy whose conversation is shown as it goes."""

    def __init__(self, inner: Policy) -> None:
        self._inner = inner
        self.name = inner.name
        self.renderer = getattr(inner, "renderer", None)

    @property
    def weights(self) -> str:
        """The weights of whoever is watched."""
        return self._inner.weights

    def begin(self, context: str | None, seeds: Sequence[int]) -> Session:
        """Start; what the player reads is shown first."""
        if context is not None:
            say(f"{context}\n", "italic")
        return _Shown(self._inner.begin(context, seeds))


class _Shown:
    """A session that prints what it passes on."""

    def __init__(self, inner: Session) -> None:
        self._inner = inner

    def reply(self, heard: Mapping[int, tuple[str, Info]]) -> dict[int, Reply]:
        """Show what is heard, then what is said."""
        for observation, _ in heard.values():
            say(observation)
        replies = self._inner.reply(heard)
        for reply in replies.values():
            say(reply.text, "bold")
        return replies


@app.command(epilog="Example: opcd play house:7 --task 3 --model pocket")
def play(
    tasks: Tasks,
    task: Annotated[int, typer.Option(metavar="N", help="Which task of the split, from 0.")] = 0,
    split: Annotated[Split, typer.Option(help="The side of the split to take it from.")] = Split.TEST,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Watch a model: pocket, pocket-large, a folder, ORG/NAME, http://HOST/v1."),
    ] = None,
    random: Annotated[bool, typer.Option("--random", help="Watch uniform chance play.")] = False,
    solution: Annotated[bool, typer.Option("--solution", help="Watch the known solution.")] = False,
    context: Annotated[
        str | None, typer.Option(metavar="ID", help="Notes from the bank to play with: an id, a scope, `latest`.")
    ] = None,
    retrieve: Retrieve = None,
    embed: Embed = None,
    bank: Bank_ = "bank.db",
    record: Annotated[bool, typer.Option("--record", help="Keep the episode in the bank.")] = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Play a task in the terminal, or watch a model or chance play it.

    Type commands such as "go north" or "take rusty coin"; "?" lists what can be done, "quit" leaves.
    """
    if solution and record:
        raise UsageError("a known solution is no experience: it is not kept; leave out --record")
    check_reading(bank, context, retrieve, embed)
    chosen = _task(tasks, split, task)
    tell(f"task {task} of the {split} tasks of {tasks}, at most {chosen.limit} turns")
    player, role = _player(model, random, bool(context or retrieve), chosen if solution else None)
    player = _reminded(player, bank, chosen, retrieve, embed)
    notes = _context(bank, context, chosen) if context is not None else None
    try:
        episode = _episode(player, chosen, notes, seed)
    except (_Left, KeyboardInterrupt) as left:
        if model or random or solution:
            raise
        tell("\nleft; nothing was kept" if isinstance(left, KeyboardInterrupt) else "left; nothing was kept")
        if as_json:
            say_json({"outcome": None})
        return
    kept = _keep(bank, episode, role) if record else None
    _tell_ending(episode)
    if as_json:
        say_json(_result(episode, kept))
    if episode.outcome is Outcome.FAILED:
        raise typer.Exit(1)


def _task(spec: str, split: Split, number: int) -> Task:
    from envs import tasks

    every = tasks(spec)
    found = [task for task in every if task.split is split]
    if not found and len({task.split for task in every}) == 1:  # a game of somebody's own is on one side, by its hash
        found = every
    if not 0 <= number < len(found):
        raise UsageError(
            f"wanted --task from 0 to {len(found) - 1} ({spec} has {len(found)} {split} tasks), got {number}"
        )
    return found[number]


def _player(model: str | None, random: bool, reads_notes: bool, solved: Task | None) -> tuple[Policy, str]:
    """Who plays, and the role the bank knows such a player by."""
    if sum((model is not None, random, solved is not None)) > 1:
        raise UsageError("wanted one of --model, --random and --solution, got several")
    if solved is not None:
        from envs import solution
        from opcd_agents.policies.scripted import ScriptedPolicy

        commands = solution(solved)
        if not commands:
            raise UsageError("no solution of this task is known")
        return _Watched(ScriptedPolicy([f"> {command}" for command in commands], "solution")), "solution"
    if random:
        from opcd_agents.policies.scripted import RandomPolicy

        return _Watched(RandomPolicy()), "random"
    if model is None:
        return _Person(), "human"
    from cli.models import player

    return _Watched(player(model)), "teacher" if reads_notes else "student"


def _context(bank: str, name: str, task: Task) -> Context:
    from cli.workflow import about
    from experience_bank import Bank

    with Bank.open(bank, "r") as opened:
        return about(opened.context(name), [task])


def _reminded(player: Policy, bank: str, task: Task, when: When | None, embed: str | None) -> Policy:
    if when is None:
        return player
    from cli.models import counter
    from cli.notes import reminder
    from experience_bank import Bank

    with Bank.open(bank, "r") as opened:
        remind = reminder(opened, task.scope, when, counter(player), embed)
    return remind(player, [task])


def _episode(player: Policy, task: Task, notes: Context | None, seed: int) -> Episode:
    from envs import make_env, prepare
    from opcd_agents.rollout import play as roll

    with Progress("compiling") as bar:
        prepare([task], bar.update)
    text, name = (notes.text, notes.id) if notes else (None, None)
    return roll(player, [task], make_env, context=text, context_id=name, seed=seed)[0]


def _keep(bank: str, episode: Episode, role: str) -> str:
    from experience_bank import Bank

    with Bank.open(bank) as opened:
        return opened.add_episode(episode, role)


def _tell_ending(episode: Episode) -> None:
    say(episode.final)
    turns = len(episode.turns)
    optimum = f"; the optimum is {episode.task.optimal}" if episode.task.optimal is not None else ""
    reason = f": {episode.error}" if episode.error else ""
    say(f"\n{_ENDINGS[episode.outcome]} after {turns} turn{'s' * (turns != 1)}{optimum}{reason}", "bold")


def _result(episode: Episode, kept: str | None) -> dict[str, Any]:
    return {
        "outcome": str(episode.outcome),
        "turns": len(episode.turns),
        "optimal": episode.task.optimal,
        "limit": episode.task.limit,
        "fingerprint": episode.task.fingerprint,
        "scope": episode.task.scope,
        "split": str(episode.task.split),
        "model": episode.provenance.model,
        "seed": episode.provenance.seed,
        "episode": kept,
        "error": episode.error,
    }
