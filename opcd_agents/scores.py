"""Scores that can be believed: wins with Wilson intervals, and the gap closed with a paired bootstrap.

Knows no environments: it counts outcomes by task fingerprint. Failed episodes are left out, never counted as lost.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from opcd_agents.types import Episode, Outcome, Score

_Z = 1.959963984540054  # 95 %, two-sided


def wilson(wins: int, episodes: int) -> tuple[float, float]:
    """95 % interval of a rate (Wilson, JASA 22, 1927); (0, 1) where nothing was played."""
    if episodes == 0:
        return 0.0, 1.0
    rate, z2 = wins / episodes, _Z * _Z
    middle = rate + z2 / (2 * episodes)
    half = _Z * math.sqrt(rate * (1 - rate) / episodes + z2 / (4 * episodes**2))
    scale = 1 + z2 / episodes
    # Rounding must not put the rate itself outside, which at 0 and 1 is an end of the interval.
    return max(0.0, min(rate, (middle - half) / scale)), min(1.0, max(rate, (middle + half) / scale))


def tally(by_task: Mapping[str, tuple[int, int]]) -> Score:
    """A score from fingerprint -> (wins, episodes)."""
    wins = sum(w for w, _ in by_task.values())
    episodes = sum(n for _, n in by_task.values())
    return Score(wins, episodes, *wilson(wins, episodes), by_task=dict(by_task))


def score(episodes: Iterable[Episode]) -> Score:
    """The score of episodes that did not fail."""
    by_task: dict[str, tuple[int, int]] = {}
    for episode in episodes:
        if episode.outcome is not Outcome.FAILED:
            wins, played = by_task.get(episode.task.fingerprint, (0, 0))
            by_task[episode.task.fingerprint] = wins + episode.won, played + 1
    return tally(by_task)


@dataclass(frozen=True)
class GapClosed:
    """(after - before) / (with context - before) and its 95 % interval; `value` is nan where there is no gap."""

    value: float
    low: float
    high: float


def gap_closed(before: Score, with_context: Score, after: Score, seed: int = 0, draws: int = 4000) -> GapClosed:
    """How much of the gap between playing without and with the context was closed, on the tasks that all three played.

    The interval is a percentile bootstrap over tasks; a drawn task brings its episodes of all three scores, so
    that hard tasks are hard for all.

    Args:
        before: The student before, without the context.
        with_context: The same model with the context: the teacher.
        after: The student after, without the context.
        seed: Seed of the bootstrap.
        draws: Bootstrap samples.
    """
    scores = (before, with_context, after)
    tasks = sorted(t for t in before.by_task if all(s.by_task.get(t, (0, 0))[1] for s in scores))
    if not tasks:
        return GapClosed(math.nan, math.nan, math.nan)
    counts = np.array([[s.by_task[t] for t in tasks] for s in scores], dtype=float)
    drawn = np.random.default_rng(seed).integers(len(tasks), size=(draws, len(tasks)))
    closed = _closed(counts[:, drawn].sum(2))
    value = float(_closed(counts.sum(1, keepdims=True))[0])
    if np.isnan(closed).all():
        return GapClosed(value, math.nan, math.nan)
    low, high = np.nanquantile(closed, [0.025, 0.975])
    return GapClosed(value, float(low), float(high))


def _closed(counts: np.ndarray) -> np.ndarray:
    """Share of the gap that is closed [draw], from counts [score, draw, wins | episodes]; nan where there is no gap."""
    before, teacher, after = counts[..., 0] / counts[..., 1]
    gap = teacher - before
    return np.where(gap > 0, after - before, math.nan) / np.where(gap > 0, gap, 1.0)
