"""Two anchors of a score: uniform chance, and the best player that is blind.

The blind player reads the objective but no observation: it says the same sequence of commands in every
task, with the objective's names filled in. Both play the simulated house, which a contract test holds equal to the
compiled game. Knows no models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from envs.house_data import goal_of, house_plan
from envs.operator import DIGITS, OPERATOR_ID
from opcd_agents.errors import UsageError
from opcd_agents.pocket.houses import Goal, HousePlan, HouseState, solve
from opcd_agents.pocket.names import DIRECTIONS

if TYPE_CHECKING:
    from opcd_agents.types import Task

_BEAM = 8
_NEARNESS = 0.6
_TAKE, _PUT = "take {thing}", "put {thing} into {container}"
WinsByTask = Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Blind:
    """A blind player and how it did: `by_task` maps a fingerprint to (wins, episodes)."""

    sequence: tuple[str, ...]
    by_task: WinsByTask


@dataclass(frozen=True)
class _Spot:
    """All that matters of a task's state to a player that handles no thing but the goal's."""

    goal: Goal
    state: HouseState
    left: int

    @cached_property
    def won(self) -> bool:
        return self.state.achieves(self.goal)

    @cached_property
    def key(self) -> tuple[object, ...]:
        place = self.state.place_of(self.goal.thing)
        return (self.goal, self.state.room, self.state.open, place)


@dataclass
class _Moves:
    """What commands do, remembered: the tasks of a house pass through few states."""

    after: dict[tuple[object, ...], _Spot] = field(default_factory=dict[tuple[object, ...], _Spot])
    missing: dict[tuple[object, ...], int] = field(default_factory=dict[tuple[object, ...], int])

    def obey(self, spot: _Spot, template: str) -> _Spot:
        """The spot after a command; where it is not legal, only a turn is gone."""
        if spot.won or spot.left == 0:
            return spot
        key = (spot.key, spot.left, template)
        if key not in self.after:
            self.after[key] = _obeyed(spot, template)
        return self.after[key]

    def worth(self, spot: _Spot) -> float:
        """1 for a win, 0 where none is left in time, between them by the turns that are missing."""
        if spot.won or spot.left == 0:
            return float(spot.won)
        if spot.key not in self.missing:
            self.missing[spot.key] = len(solve(spot.state, spot.goal))
        missing = self.missing[spot.key]
        return _NEARNESS**missing if missing <= spot.left else 0.0


def best_blind(fit: Sequence[Task], score: Sequence[Task]) -> Blind:
    """The blind player that wins most of `fit`, found by beam search, and how it does on `score`.

    Args:
        fit: Tasks of one scope to choose the sequence on (the train split).
        score: Tasks of the same scope to score it on.

    Raises:
        UsageError: `fit` is empty, or the tasks are not all of one scope.
    """
    if not fit or len({task.scope for task in (*fit, *score)}) != 1:
        raise UsageError("wanted tasks of one scope, and at least one to fit the blind player on")
    if fit[0].env_id == OPERATOR_ID:
        return _blind_digits(fit, score)
    sequence = _search(fit)
    return Blind(sequence, {t.fingerprint: (int(_wins_blind(t, sequence)), 1) for t in score})


def random_wins(tasks: Sequence[Task], seed: int, repeats: int = 1) -> WinsByTask:
    """How often uniform choice among the admissible commands wins.

    Args:
        tasks: What is played.
        seed: Seed of all chance.
        repeats: Episodes a task.

    Returns:
        fingerprint -> (wins, episodes).
    """
    rng = np.random.default_rng(seed)
    play = {True: _wins_digits, False: _wins_random}
    return {
        task.fingerprint: (
            sum(play[task.env_id == OPERATOR_ID](task, rng) for _ in range(repeats)),
            repeats,
        )
        for task in tasks
    }


def _search(fit: Sequence[Task]) -> tuple[str, ...]:
    commands = _templates(house_plan(fit[0].kwargs["house"]))
    moves = _Moves()
    beam: list[tuple[tuple[str, ...], tuple[_Spot, ...]]] = [((), tuple(map(_spot, fit)))]
    best = beam[0]
    for _ in range(max(task.limit for task in fit)):
        found = [
            ((*said, command), tuple(moves.obey(spot, command) for spot in spots))
            for said, spots in beam
            for command in commands
        ]
        found.sort(key=lambda node: -sum(map(moves.worth, node[1])))
        beam = found[:_BEAM]
        best = max([best, *found], key=lambda node: sum(spot.won for spot in node[1]))
    return best[0]


def _templates(plan: HousePlan) -> list[str]:
    named = [f"open {name}" for name in (*plan.doors, *plan.containers)]
    return [*(f"go {way}" for way in DIRECTIONS), *named, _TAKE, _PUT]


def _spot(task: Task) -> _Spot:
    state = house_plan(task.kwargs["house"]).start(task.kwargs["start"])
    return _Spot(goal_of(task), state, task.limit)


def _obeyed(spot: _Spot, template: str) -> _Spot:
    command = template.format(thing=spot.goal.thing, container=spot.goal.container)
    legal = command in spot.state.commands()
    state = spot.state.apply(command)[0] if legal else spot.state
    return _Spot(spot.goal, state, spot.left - 1)


def _wins_blind(task: Task, sequence: Sequence[str]) -> bool:
    spot = _spot(task)
    for command in sequence:
        if not spot.won and spot.left:
            spot = _obeyed(spot, command)
    return spot.won


def _wins_random(task: Task, rng: np.random.Generator) -> bool:
    goal, state = goal_of(task), _spot(task).state
    for _ in range(task.limit):
        commands = state.commands()
        state, _ = state.apply(commands[int(rng.integers(len(commands)))])
        if state.achieves(goal):
            return True
    return False


def _right(task: Task) -> str:
    kwargs = task.kwargs
    return str((kwargs["p"] * kwargs["a"] + kwargs["q"] * kwargs["b"]) % 10)


def _wins_digits(task: Task, rng: np.random.Generator) -> bool:
    said = rng.integers(len(DIGITS), size=task.limit)
    return _right(task) in {DIGITS[i] for i in said}


def _blind_digits(fit: Sequence[Task], score: Sequence[Task]) -> Blind:
    counts = Counter(map(_right, fit))
    order = sorted(DIGITS, key=lambda digit: (-counts[digit], digit))
    sequence = tuple(order[: max(task.limit for task in fit)])
    won = {t.fingerprint: (int(_right(t) in sequence[: t.limit]), 1) for t in score}
    return Blind(sequence, won)
