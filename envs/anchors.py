"""Two anchors of a score: uniform chance, and the best player that is blind.

The blind player reads the objective but no observation: it says the same sequence of commands in every
task, with the objective's names filled in. Knows no models and no engine: both play `envs.spots`.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from envs.spots import Spot, first_spot
from opcd_agents.errors import UsageError

if TYPE_CHECKING:
    from opcd_agents.types import Task

_BEAM = 8
_NEARNESS = 0.6
WinsByTask = Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Blind:
    """A blind player and how it did: `by_task` maps a fingerprint to (wins, episodes)."""

    sequence: tuple[str, ...]
    by_task: WinsByTask


@dataclass
class _Moves:
    """What commands do and what spots are worth, remembered: the tasks of a scope pass through few."""

    known: dict[tuple[Hashable, str], Spot] = field(default_factory=dict[tuple[Hashable, str], Spot])
    missing: dict[Hashable, int | None] = field(default_factory=dict[Hashable, int | None])

    def after(self, spot: Spot, said: str, left: int) -> Spot:
        """The spot after a blind command; nothing changes once the episode is over."""
        if spot.won or spot.lost or left <= 0:
            return spot
        key = (spot.key, said)
        if key not in self.known:
            self.known[key] = spot.after_blind(said)
        return self.known[key]

    def worth(self, spot: Spot, left: int) -> float:
        """1 for a win, 0 where none is left in time, between them by the turns that are missing."""
        if spot.won or spot.lost:
            return float(spot.won)
        if spot.key not in self.missing:
            self.missing[spot.key] = spot.missing()
        missing = self.missing[spot.key]
        return _NEARNESS**missing if missing is not None and missing <= left else 0.0


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
    return {task.fingerprint: (sum(_wins_random(task, rng) for _ in range(repeats)), repeats) for task in tasks}


def _search(fit: Sequence[Task]) -> tuple[str, ...]:
    moves, limits = _Moves(), [task.limit for task in fit]
    first = tuple(map(first_spot, fit))
    commands = first[0].blind_commands()
    beam: list[tuple[tuple[str, ...], tuple[Spot, ...]]] = [((), first)]
    best = beam[0]
    for turn in range(max(limits)):
        left = [limit - turn for limit in limits]
        found = [
            ((*said, command), tuple(moves.after(s, command, n) for s, n in zip(spots, left, strict=True)))
            for said, spots in beam
            for command in commands
        ]
        found.sort(key=lambda node: -sum(moves.worth(s, n - 1) for s, n in zip(node[1], left, strict=True)))
        beam = found[:_BEAM]
        best = max([best, *found], key=lambda node: sum(spot.won for spot in node[1]))
    return best[0]


def _wins_blind(task: Task, sequence: Sequence[str]) -> bool:
    spot = first_spot(task)
    for said in sequence[: task.limit]:
        if spot.won or spot.lost:
            break
        spot = spot.after_blind(said)
    return spot.won


def _wins_random(task: Task, rng: np.random.Generator) -> bool:
    spot = first_spot(task)
    for _ in range(task.limit):
        commands = spot.commands()
        spot = spot.after(commands[int(rng.integers(len(commands)))])
        if spot.won or spot.lost:
            break
    return spot.won
