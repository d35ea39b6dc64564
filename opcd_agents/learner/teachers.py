"""Who scores the student's tokens: frozen weights, an adapter switched off, a follower of the student; several: `ensemble.py`.

A teacher reads rows with the context and says how likely each next id was. Where its weights never change, a context's keys and
values are computed once a run; where they do, once an update. Knows no loss. Which to take: OPCD (arXiv 2602.12275, table 5) won
53.9 % of Sokoban games with the frozen one and 18.8 % with the live student, so that one is possible and warned about.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, cast, final

import torch
from torch import Tensor
from transformers import PreTrainedModel

from opcd_agents.errors import CheckpointError, UsageError
from opcd_agents.learner.forward import Passes, PrefixStates
from opcd_agents.learner.saying import Heard, Part, Saying
from opcd_agents.learner.sharding import whole
from opcd_agents.policies.loading import head_of, positions, weights_hash
from opcd_agents.types import Tokens

PASSES: Final = Passes()
LIVE: Final = (
    "a live teacher may run away with its student: 18.8 % of Sokoban games won against 53.9 % with a frozen one (OPCD, table 5); "
    "prefer teacher = 'frozen' or 'ema'"
)


class Teacher(ABC):
    """Whoever scores the sampled ids of the teacher rows."""

    @abstractmethod
    def __call__(self, rows: Sequence[Tokens], passes: Passes = PASSES) -> Saying:
        """What it says at each sampled id of the rows, in row order."""

    @property
    def network(self) -> PreTrainedModel | None:
        """The one model that it is, which can also play; None where it is none or several."""
        return None

    @property
    def vocabulary(self) -> int:
        """How many ids it tells of."""
        return head_of(cast("PreTrainedModel", self.network)).weight.shape[0]

    @property
    def positions(self) -> int | None:
        """The longest row that it takes; None: as long as the student's, or not known."""
        return None if self.network is None else positions(self.network)

    @property
    def identity(self) -> str:
        """Names what of it never changes, so that a run is resumed with the same; "" where the student's own weights are all it has."""
        return ""

    def step(self, update: int) -> None:  # noqa: B027 - most do not change
        """The student has made its `update`-th step, from 1."""

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint must keep of it, by name."""
        return {}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what a checkpoint kept.

        Raises:
            CheckpointError: It kept something else.
        """
        if tensors:
            raise CheckpointError(
                "checkpoint belongs to a run with another teacher; resume with the recipe it began with"
            )


@final
class Frozen(Teacher):
    """Weights that never change: the student's first ones, or another model of the same vocabulary.

    Args:
        network: The model.
        most: How many ids the student knows; those behind them, where this model's head is padded further, are left out.
    """

    def __init__(self, network: PreTrainedModel, most: int | None = None) -> None:
        self._network = network.eval().requires_grad_(False)
        self._states = PrefixStates(network)
        self._most = most
        self._hash = ""

    def __call__(self, rows: Sequence[Tokens], passes: Passes = PASSES) -> Heard:
        """See `Teacher`."""
        return Heard((_part(self._network, self._states, rows, passes),)).cut(self._most)

    @property
    def vocabulary(self) -> int:
        """See `Teacher`."""
        return len(head_of(self._network).weight[: self._most])

    @property
    def network(self) -> PreTrainedModel:
        """See `Teacher`."""
        return self._network

    @property
    def identity(self) -> str:
        """See `Teacher`; sha256 of the weights."""
        self._hash = self._hash or weights_hash(self._network)
        return self._hash


@final
class AdapterOff(Teacher):
    """The student without its LoRA adapter: one set of weights for both.

    Args:
        student: A model of peft.
    """

    def __init__(self, student: Any) -> None:
        self._student = student
        self._states = PrefixStates(student.get_base_model())

    def __call__(self, rows: Sequence[Tokens], passes: Passes = PASSES) -> Heard:
        """See `Teacher`."""
        with cast("AbstractContextManager[None]", self._student.disable_adapter()):
            return Heard((_part(self._student.get_base_model(), self._states, rows, passes),))

    @property
    def network(self) -> PreTrainedModel:
        """See `Teacher`; whoever plays with it switches the adapter off meanwhile."""
        return self._student.get_base_model()


@final
class Live(Teacher):
    """The student as it is now; `LIVE` says what may come of it."""

    def __init__(self, student: PreTrainedModel) -> None:
        self._student = student
        self._states = PrefixStates(student)

    def __call__(self, rows: Sequence[Tokens], passes: Passes = PASSES) -> Heard:
        """See `Teacher`."""
        return Heard((_part(self._student, self._states, rows, passes),))

    @property
    def network(self) -> PreTrainedModel:
        """See `Teacher`."""
        return self._student

    def step(self, update: int) -> None:
        """See `Teacher`."""
        self._states.forget()


@final
class Following(Teacher):
    """A copy that follows the student: w <- (1 - rate) w + rate student, after each `every` updates.

    With a small rate and every = 1 an exponential moving average (SDFT, arXiv 2601.19897: .01; SDPO, 2601.20802: .05), with rate 1 a
    periodic sync (LLM-as-a-Coach, 2607.18110: every 30 updates).
    """

    def __init__(self, student: PreTrainedModel, rate: float, every: int = 1) -> None:
        if not 0 < rate <= 1 or every < 1:
            raise UsageError(f"wanted a rate above 0 and up to 1 and every at least 1, got {rate} and {every}")
        self._student, self._rate, self._every = student, rate, every
        self._copy = copy.deepcopy(student).eval().requires_grad_(False)
        self._states = PrefixStates(self._copy)

    def __call__(self, rows: Sequence[Tokens], passes: Passes = PASSES) -> Heard:
        """See `Teacher`."""
        return Heard((_part(self._copy, self._states, rows, passes),))

    @property
    def network(self) -> PreTrainedModel:
        """See `Teacher`."""
        return self._copy

    @torch.no_grad()
    def step(self, update: int) -> None:
        """See `Teacher`."""
        if update % self._every:
            return
        for mine, theirs in zip(self._copy.parameters(), self._student.parameters(), strict=True):
            mine.lerp_(whole(theirs), self._rate)
        self._states.forget()

    def tensors(self) -> dict[str, Tensor]:
        """See `Teacher`."""
        return dict(self._copy.named_parameters())

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """See `Teacher`."""
        mine = self.tensors()
        if {name: one.shape for name, one in tensors.items()} != {name: one.shape for name, one in mine.items()}:
            super().load(tensors or {"": torch.empty(0)})
        for name, tensor in mine.items():
            tensor.copy_(tensors[name])
        self._states.forget()


@final
class TrustRegion(Teacher):
    """Between the initial weights and the student: logits (1 - rate) initial + rate student (SDPO, arXiv 2601.20802)."""

    def __init__(self, initial: PreTrainedModel, student: PreTrainedModel, rate: float) -> None:
        if not 0 < rate < 1:
            raise UsageError(f"wanted a rate between 0 and 1, got {rate}")
        self._models = (initial.eval().requires_grad_(False), student)
        self._states = (PrefixStates(initial), PrefixStates(student))
        self._weights = (1 - rate, rate)

    def __call__(self, rows: Sequence[Tokens], passes: Passes = PASSES) -> Heard:
        """See `Teacher`."""
        three = zip(self._models, self._states, self._weights, strict=True)
        return Heard(tuple(_part(model, states, rows, passes, weight) for model, states, weight in three), "logits")

    @property
    def vocabulary(self) -> int:
        """See `Teacher`."""
        return head_of(self._models[0]).weight.shape[0]

    def step(self, update: int) -> None:
        """See `Teacher`."""
        self._states[1].forget()


def shared_rows(head: Tensor, teacher: Saying | None) -> Tensor:
    """The rows of a student's head [vocabulary, size] whose ids its teacher knows too: heads of one tokenizer may be padded differently."""
    return head if teacher is None or teacher.vocabulary >= head.shape[0] else head[: teacher.vocabulary]


def _part(
    network: PreTrainedModel, states: PrefixStates, rows: Sequence[Tokens], passes: Passes, weight: float = 1.0
) -> Part:
    hidden = states(rows, passes)
    return Part(hidden, head_of(network).weight.detach().to(hidden.dtype), weight)
