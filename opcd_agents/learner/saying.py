"""What a teacher says at the sampled positions of some rows: logits, a few positions at a time. Knows no rows and no loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, final

import torch
from torch import Tensor


class Saying(ABC):
    """What a teacher says at the sampled positions of some rows.

    Attributes:
        whole: Whether it tells whole distributions: their entropy and mass are known, and they can be cooled.
    """

    whole: ClassVar[bool] = True

    @property
    @abstractmethod
    def vocabulary(self) -> int:
        """How many ids it knows."""

    @abstractmethod
    def logits(self, rows: slice) -> Tensor:
        """Logits at some positions, up to a constant of each: [rows, vocabulary], float32, the caller's to overwrite."""


@dataclass(frozen=True)
class Part:
    """What one model says: `hidden @ head.T` are its logits.

    Attributes:
        hidden: [positions, its size].
        head: [vocabulary, its size].
        weight: Its share among several.
    """

    hidden: Tensor
    head: Tensor
    weight: float = 1.0


@final
@dataclass(frozen=True)
class Heard(Saying):
    """What one model or several say.

    Attributes:
        parts: Their weights add up to 1.
        mix: Whether several are averaged as probabilities (an ensemble) or as logits (a trust region).
    """

    parts: tuple[Part, ...]
    mix: Literal["probabilities", "logits"] = "probabilities"

    @classmethod
    def of(cls, hidden: Tensor, head: Tensor) -> Heard:
        """What one model says; see `Part`."""
        return cls((Part(hidden, head),))

    def cut(self, most: int | None) -> Heard:
        """The same without the ids from `most` on."""
        return replace(self, parts=tuple(replace(part, head=part.head[:most]) for part in self.parts))

    @property
    def vocabulary(self) -> int:
        """See `Saying`."""
        return self.parts[0].head.shape[0]

    def logits(self, rows: slice) -> Tensor:
        """See `Saying`."""
        said = [(part.hidden[rows] @ part.head.T).float() for part in self.parts]
        if len(said) == 1:
            return said[0]
        shares = torch.tensor([part.weight for part in self.parts], device=said[0].device)[:, None, None]
        if self.mix == "logits":
            return (torch.stack(said) * shares).sum(0)
        return torch.logsumexp(torch.stack([torch.log_softmax(logits, -1) for logits in said]) + shares.log(), 0)
