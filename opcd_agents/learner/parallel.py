"""Processes that share a run: sums of numbers and of gradients, lists put together. Knows no loss and no rows.

Every process plays and learns from its share; a loss is averaged over the ids of all, so that gradients are simply added up and several
processes make the update that one would make of all the examples (up to the order of sums).
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, TypeVar, cast, final

import torch
import torch.distributed as dist
from accelerate import PartialState  # pyright: ignore[reportMissingTypeStubs]
from torch import Tensor

from opcd_agents.learner.sharding import is_sharded
from opcd_agents.policies.loading import device_here

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
    def together(self, items: Sequence[_T]) -> list[_T]:
        """What came of each process's `share`, in the order of the whole; all processes get all of it."""

    @abstractmethod
    def total(self, values: Sequence[float]) -> list[float]:
        """Sums of numbers over all processes."""

    @abstractmethod
    def most(self, number: int) -> int:
        """The largest number of any process."""

    @abstractmethod
    def add_up(self, parameters: Sequence[Tensor]) -> None:
        """Make each gradient the sum of those of all processes; one that is missing counts as nought.

        Sharded ones are left alone: their backward pass has added them up.
        """


def found() -> Workers:
    """The processes that `accelerate launch` or `torchrun` started; one, if none did."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return Alone()
    where = device_here()
    PartialState(cpu=where.type == "cpu")  # joins the group, over whatever the machine has
    return Processes(where)


@final
class Alone(Workers):
    """One process."""

    def wait(self) -> None:
        """See `Workers`."""

    def together(self, items: Sequence[_T]) -> list[_T]:
        """See `Workers`."""
        return list(items)

    def total(self, values: Sequence[float]) -> list[float]:
        """See `Workers`."""
        return list(values)

    def most(self, number: int) -> int:
        """See `Workers`."""
        return number

    def add_up(self, parameters: Sequence[Tensor]) -> None:
        """See `Workers`."""


@final
class Processes(Workers):
    """The processes of an initialised `torch.distributed` group, as `accelerate launch` and `torchrun` start them.

    Args:
        where: The device of this one; what a GPU's group sends must lie there.
    """

    def __init__(self, where: torch.device) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._where = where

    def wait(self) -> None:
        """See `Workers`."""
        dist.barrier()

    def together(self, items: Sequence[_T]) -> list[_T]:
        """See `Workers`."""
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, list(items))
        shares = cast("list[list[_T]]", found)
        return [shares[n % self.size][n // self.size] for n in range(sum(map(len, shares)))]

    def total(self, values: Sequence[float]) -> list[float]:
        """See `Workers`."""
        sums = torch.tensor(list(values), dtype=torch.float64, device=self._where)
        dist.all_reduce(sums)
        return sums.tolist()

    def most(self, number: int) -> int:
        """See `Workers`."""
        most = torch.tensor(number, device=self._where)
        dist.all_reduce(most, dist.ReduceOp.MAX)
        return int(most)

    def add_up(self, parameters: Sequence[Tensor]) -> None:
        """See `Workers`."""
        for parameter in parameters:
            if is_sharded(parameter):
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad)
