"""What a context is worth, from paired play with it and without it. Plays nothing itself.

A context that was never tried may cost more than it brings (OPCD's best of 300 contexts won 48.4 % on Sokoban where the
average of OEL's won 18.2 %), and the gap on tasks of neither training nor test tells what distillation can gain.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np

from experience_bank.contexts import Counts, Validation
from opcd_agents.errors import UsageError
from opcd_agents.types import Split

_DRAWS: Final = 4000
_ERROR: Final = 0.05  # chance that any of all candidates is blessed for nothing
_FEWEST: Final = 8  # episodes with a context, below which nothing is proved


@dataclass(frozen=True)
class Gap:
    """Rate of wins with the context minus the rate without, and its interval; see `gap`."""

    value: float
    low: float
    high: float


def refuse_split(split: Split) -> None:
    """Refuse to choose contexts by tasks they were made from or will be judged by.

    Raises:
        UsageError: The split is not validation.
    """
    if split is not Split.VALIDATION:
        raise UsageError(f"wanted the validation split to choose contexts by, got {split}; {split} is not for that")


def gap(by_task: Mapping[str, Counts], candidates: int = 1, seed: int = 0) -> Gap:
    """The gap of a validation, with the wider of two intervals: a paired bootstrap over tasks, and Newcombe's.

    The bootstrap knows that the episodes of one task are alike, but where tasks are few or all went the same way its draws
    are too, and its interval shrinks to a point. Newcombe's, of the difference of two proportions (Statistics in Medicine
    17, 1998, method 10), does not. Each end is that of the wider one.

    Args:
        by_task: See `Validation`; tasks that were not played both with and without are left out.
        candidates: Among how many contexts one is chosen; 95 % is what all their intervals together have (Bonferroni).
        seed: Seed of the bootstrap.

    Raises:
        UsageError: No task was played both ways.
    """
    counts = np.array([by_task[t] for t in sorted(by_task) if by_task[t][1] and by_task[t][3]], dtype=float)
    if not len(counts):
        raise UsageError("wanted tasks that were played with and without the context, got none; play some")
    drawn = np.random.default_rng(seed).integers(len(counts), size=(_DRAWS, len(counts)))
    tail = _ERROR / candidates / 2
    value = float(_difference(counts.sum(0, keepdims=True))[0])
    low, high = np.quantile(_difference(counts[drawn].sum(1)), [tail, 1 - tail])
    least, most = _newcombe(counts.sum(0), NormalDist().inv_cdf(1 - tail))
    return Gap(value, min(float(low), least), max(float(high), most))


def front(validations: Sequence[Validation]) -> list[str]:
    """Ids of the contexts that are best on some task, or no worse anywhere than whoever is (the Pareto front by task, GEPA).

    Args:
        validations: Of one scope; those of one context are added up.
    """
    rates = _rates(validations)
    tasks = sorted({task for played in rates.values() for task in played})
    table = {key: [played.get(task, 0.0) for task in tasks] for key, played in rates.items()}
    return [key for key, mine in table.items() if not any(_dominates(other, mine) for other in table.values())]


def best(validations: Sequence[Validation]) -> str | None:
    """Id of the context to use: the largest gap among those that are surely better than none; None if there is none.

    Sure is a context that was played in at least eight episodes and whose interval lies above nought. Of many contexts that
    bring nothing some look good by luck alone, so the intervals widen with their number; see `gap` for the rest.
    """
    tried = together(validations)
    gaps = {key: gap(counts, len(tried)) for key, counts in tried.items()}
    played = {key: sum(with_it for _, with_it, _, without in tried[key].values() if without) for key in tried}
    proved = [key for key, found in gaps.items() if found.low > 0 and played[key] >= _FEWEST]
    return max(proved, key=lambda key: (gaps[key].value, key), default=None)


def together(validations: Sequence[Validation]) -> dict[str, dict[str, Counts]]:
    """Context id to its counts by task, over all its validations."""
    found: dict[str, dict[str, Counts]] = {}
    for one in validations:
        mine = found.setdefault(one.context_id, {})
        for task, (wins, played, wins_without, played_without) in one.by_task.items():
            a, b, c, d = mine.get(task, (0, 0, 0, 0))
            mine[task] = a + wins, b + played, c + wins_without, d + played_without
    return found


def _rates(validations: Sequence[Validation]) -> dict[str, dict[str, float]]:
    played = together(validations)
    return {key: {task: c[0] / c[1] for task, c in counts.items() if c[1]} for key, counts in played.items()}


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return list(one) != list(other) and all(a >= b for a, b in zip(one, other, strict=True))


def _newcombe(counts: np.ndarray, z: float) -> tuple[float, float]:
    """Interval of the difference of two rates, from wins and episodes with, wins and episodes without."""
    wins, played, wins_without, played_without = map(float, counts)
    mine, theirs = wins / played, wins_without / played_without
    (low, high), (low_without, high_without) = _wilson(mine, played, z), _wilson(theirs, played_without, z)
    below, above = math.hypot(mine - low, high_without - theirs), math.hypot(high - mine, theirs - low_without)
    return mine - theirs - below, mine - theirs + above


def _wilson(rate: float, played: float, z: float) -> tuple[float, float]:
    """Interval of a rate at any level; `opcd_agents.scores.wilson` has but one."""
    middle = rate + z * z / (2 * played)
    half = z * math.sqrt(rate * (1 - rate) / played + z * z / (4 * played * played))
    scale = 1 + z * z / played
    return (middle - half) / scale, (middle + half) / scale


def _difference(counts: np.ndarray) -> np.ndarray:
    """Rate with minus rate without [draw], from counts [draw, 4]."""
    return counts[:, 0] / counts[:, 1] - counts[:, 2] / counts[:, 3]
