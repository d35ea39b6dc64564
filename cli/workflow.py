"""The steps that the commands share: gather episodes, keep anchors, score. Prints nothing.

This is where environments, bank and learner meet: each is handed to the other here and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

import envs
from cli.models import counter
from experience_bank import consolidate, extract, system_prompt
from opcd_agents.errors import EngineError, MissingError, UsageError
from opcd_agents.pocket.operators import sample_operator
from opcd_agents.rollout import deal, play
from opcd_agents.scores import GapClosed, tally
from opcd_agents.types import Context, Episode, Outcome, Score, Split, Task

if TYPE_CHECKING:
    from opcd_agents.types import Policy

BUDGET = 512  # tokens of a context

_RETAINED = 1_000_000  # houses that stand beside the one that is distilled; far from any seed a person types

Watch = Callable[[str, int, int], None]
Share = Callable[[Sequence[int]], list[int]]  # which of all episodes are this process's
Remind = Callable[
    ["Policy", Sequence[Task]], "Policy"
]  # who plays, what: the same player with lessons in front of what it sees


def quiet(what: str, done: int, total: int) -> None:
    """Watch nothing."""


def split(tasks: Sequence[Task], name: str) -> list[Task]:
    """The tasks on one side of the split.

    Raises:
        UsageError: There is none.
    """
    found = [task for task in tasks if task.split == name]
    if not found:
        raise UsageError(f"wanted tasks of the split {name!r}, got none; splits: {', '.join(Split)}")
    return found


def gather(
    policy: Policy,
    tasks: Sequence[Task],
    episodes: int,
    *,
    seed: int,
    context: Context | None = None,
    remind: Remind | None = None,
    keep: Callable[[Episode], object] = lambda episode: None,
    watch: Watch = quiet,
    slots: int = 64,
    share: Share = list,
) -> list[Episode]:
    """Play `episodes` episodes of the tasks; `keep` is called with each as soon as it and those before it are over.

    With a `share` (`Workers.share`), only those of this process: the ones that a single process would play there.
    """
    streams = share(range(episodes))
    whole = deal(tasks, episodes, np.random.default_rng([seed, 1]))
    dealt = [whole[number] for number in streams]
    policy = policy if remind is None else remind(policy, dealt)
    envs.prepare(dealt, progress=lambda done, total: watch("compile games", done, total))
    over = count(1)

    def done(episode: Episode) -> None:
        keep(episode)
        watch("play", next(over), len(dealt))

    watch("play", 0, len(dealt))
    return play(
        policy,
        dealt,
        envs.make_env,
        context=context.text if context else None,
        context_id=context.id if context else None,
        seed=seed,
        streams=streams,
        slots=slots,
        done=done,
    )


def parting(episode: Episode) -> int | None:
    """The first turn at which an episode's game, told the same replies, shows something else; None if there is none.

    What the last reply brought counts as the turn after the last. Rewards and the end must be the same too.

    Raises:
        EngineError: The game cannot be had again: the episode's task names none, or one that is not here.
    """
    env = None
    try:
        env = envs.make_env(episode.task)
        shown, _ = env.reset(seed=episode.task.seed, options={"task": episode.task})
    except MissingError:
        raise
    except Exception as error:  # an episode that was imported may name any game with any arguments
        if env is not None:
            env.close()
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise EngineError(f"its game {episode.task.env_id!r:.60} cannot be played here ({said:.160})") from error
    try:
        over = False
        for number, turn in enumerate(episode.turns):
            if over or shown != turn.observation:
                return number
            shown, reward, terminated, truncated, _ = env.step(turn.reply)
            over = terminated or truncated
            if reward != turn.reward:
                return number
        ended = episode.outcome is Outcome.FAILED or over
        return None if ended and shown == episode.final else len(episode.turns)
    finally:
        env.close()


def about(context: Context, tasks: Sequence[Task]) -> Context:
    """The context, if it is about the world of the tasks.

    Raises:
        UsageError: It is about another.
    """
    scope = tasks[0].scope
    if context.scope != scope:
        raise UsageError(f"wanted notes on {scope}, got {context.id}, which is on {context.scope}; name {scope!r}")
    return context


@dataclass(frozen=True)
class World:
    """Tasks of one scope and the context that explains it."""

    tasks: tuple[Task, ...]
    context: Context


def house_world(policy: Policy, house: int, wanted: Split, starts: int = 3, episodes: int = 64) -> World:
    """A house that the policy explores (training tasks), with the notes that come of it.

    Args:
        policy: Who explores, without notes.
        house: Seed of the house.
        wanted: The split of the tasks that are kept.
        starts: How many start rooms are compiled; a house has eight.
        episodes: How many episodes are played.
    """
    tasks = envs.house_tasks(house)
    rooms = sorted({task.kwargs["start"] for task in tasks})[:starts]
    near = [task for task in tasks if task.kwargs["start"] in rooms]
    played = gather(policy, split(near, Split.TRAIN), episodes, seed=house)
    lessons = extract((str(i), episode) for i, episode in enumerate(played))
    known = [(str(i), lesson) for i, lesson in enumerate(lessons) if lesson.scope == near[0].scope]
    context = consolidate(known, counter(policy), BUDGET)
    return World(tuple(split(near, wanted)), context)


def operator_world(seed: int, held_out: bool, count_tokens: Callable[[str], int]) -> World:
    """An operator with its definition as the context; all its questions."""
    operator = sample_operator(np.random.default_rng(seed), held_out=held_out)
    tasks = envs.operator_tasks(operator.symbol, operator.p, operator.q)
    return World(tuple(tasks), system_prompt(f"Notes: {operator.rule}", tasks[0].scope, count_tokens))


def retained_worlds(policy: Policy, seed: int) -> list[World]:
    """Two houses with notes and two operators with definitions that no distillation of this seed has seen."""
    first = _RETAINED + 10 * seed
    houses = [house_world(policy, first + i, Split.TEST) for i in range(2)]
    return houses + [operator_world(first + i, True, counter(policy)) for i in range(2)]


def play_worlds(policy: Policy, worlds: Sequence[World], episodes: int, seed: int) -> list[Episode]:
    """Play so many episodes in each world, with its context."""
    return [e for w in worlds for e in gather(policy, w.tasks, episodes, seed=seed, context=w.context)]


@dataclass(frozen=True)
class Evaluation:
    """A model before and after, beside what frames it; `before` and `after` are without the context."""

    seed: int
    before: Score
    with_context: Score
    after: Score
    random: Score
    blind: Score
    optimal: Score
    retained_before: Score
    retained_after: Score
    gap: GapClosed
    seconds: float

    def rows(self) -> list[tuple[str, Score]]:
        """The table: what was scored, and its score."""
        return [
            ("uniform random", self.random),
            ("best blind sequence", self.blind),
            ("before, without notes", self.before),
            ("before, with notes (teacher)", self.with_context),
            ("after, without notes", self.after),
            ("optimal player", self.optimal),
            ("other worlds with notes, before", self.retained_before),
            ("other worlds with notes, after", self.retained_after),
        ]

    def data(self) -> dict[str, Any]:
        """As plain values for JSON."""
        names = ("before", "with_context", "after", "random", "blind", "optimal")
        values: dict[str, Any] = {"seed": self.seed} | {name: score_data(getattr(self, name)) for name in names}
        values["retained"] = {"before": score_data(self.retained_before), "after": score_data(self.retained_after)}
        gap = {"value": self.gap.value, "low": self.gap.low, "high": self.gap.high}
        values["gap_closed"] = {name: None if math.isnan(end) else end for name, end in gap.items()}
        return values | {"seconds": round(self.seconds, 1)}


def score_data(one: Score) -> dict[str, float]:
    """A score as plain values."""
    return {"wins": one.wins, "episodes": one.episodes, "rate": one.rate, "low": one.low, "high": one.high}


def frame(tasks: Sequence[Task], test: Sequence[Task], seed: int) -> Mapping[str, Score]:
    """Uniform random, the best blind sequence (chosen on training tasks) and the optimal player, on the test tasks."""
    return {
        "random": tally(envs.random_wins(test, seed, repeats=20)),
        "blind": tally(envs.best_blind(split(tasks, Split.TRAIN), test).by_task),
        "optimal": tally(envs.solved(test)),
    }
