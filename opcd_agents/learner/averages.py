"""What each row weighs in an average over ids or over episodes, of all processes. Knows no loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from opcd_agents.learner.parallel import Workers
from opcd_agents.types import Example

Average = Literal["token", "sequence"]


@dataclass(frozen=True)
class Weighed:
    """A row in an average.

    Attributes:
        example: The row.
        weight: Of each id learnt from.
        first: Whether it is the first of its episode that anything is learnt from.
    """

    example: Example
    weight: float
    first: bool


def weighed(examples: Sequence[Example], average: Average, workers: Workers, factor: float = 1.0) -> list[Weighed]:
    """What each row weighs in an average over all processes.

    Args:
        examples: This process's; no episode is divided between processes.
        average: Over `token`, or (`sequence`) over episodes of each one's mean.
        workers: Who else has some.
        factor: Of all weights.
    """
    episodes = [e.episode if e.episode is not None else -1 - i for i, e in enumerate(examples)]
    sizes, firsts = dict[int, int](), dict[int, int]()
    for i, (n, example) in enumerate(zip(episodes, examples, strict=True)):
        sizes[n] = sizes.get(n, 0) + example.counts
        firsts.setdefault(n, i)
    ids, many = workers.total([sum(sizes.values()), len(sizes)])
    return [
        Weighed(e, e.weight * factor / (ids if average == "token" else many * sizes[n]), firsts[n] == i)
        for i, (n, e) in enumerate(zip(episodes, examples, strict=True))
    ]
