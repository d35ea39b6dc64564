"""Processes that share an update: sums of numbers and of gradients. Knows no loss and no rows.

Every process plays and learns from its share; a loss is averaged over the ids of all, so that gradients are simply added up and several
processes make the update that one would make of all the examples (up to the order of sums).
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypeVar, final

import torch
import torch.distributed as dist
from accelerate import PartialState  # pyright: ignore[reportMissingTypeStubs]
from torch import Tensor

_T = TypeVar("_T")


class Workers(ABC):
    """The processes of a run.

    Attributes:
        rank: Number of this one, from 0.
        size: How many there are.
    """

    rank: int = 0
    size: int = 1

    def share(self, items: Sequence[_T]) -> list[_T]:
        """Which of some items are this process's."""
        return list(items[self.rank :: self.size])

    @abstractmethod
    def wait(self) -> None:
        """Until all have come here."""

    @abstractmethod
    def total(self, values: Sequence[float]) -> list[float]:
        """Sums of numbers over all processes."""

    @abstractmethod
    def add_up(self, parameters: Sequence[Tensor]) -> None:
        """Make each gradient the sum of those of all processes; one that is missing counts as nought."""


def found() -> Workers:
    """The processes that `accelerate launch` or `torchrun` started; one, if none did."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return Alone()
    PartialState(cpu=not torch.cuda.is_available())  # joins the group, over whatever the machine has
    return Processes()


@final
class Alone(Workers):
    """One process."""

    def wait(self) -> None:
        """See `Workers`."""

    def total(self, values: Sequence[float]) -> list[float]:
        """See `Workers`."""
        return list(values)

    def add_up(self, parameters: Sequence[Tensor]) -> None:
        """See `Workers`."""


@final
class Processes(Workers):
    """The processes of an initialised `torch.distributed` group, as `accelerate launch` and `torchrun` start them."""

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def wait(self) -> None:
        """See `Workers`."""
        dist.barrier()

    def total(self, values: Sequence[float]) -> list[float]:
        """See `Workers`."""
        sums = torch.tensor(list(values), dtype=torch.float64)
        dist.all_reduce(sums)
        return sums.tolist()

    def add_up(self, parameters: Sequence[Tensor]) -> None:
        """See `Workers`."""
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad)
