"""Several teachers at once, their probabilities averaged. Knows neither how each reads nor a loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast, final

from torch import Tensor

from opcd_agents.errors import UsageError
from opcd_agents.learner.forward import Passes
from opcd_agents.learner.saying import Heard, Part
from opcd_agents.learner.teachers import PASSES, Teacher
from opcd_agents.types import Tokens


@final
class Ensemble(Teacher):
    """Several teachers of one vocabulary; their probabilities are averaged over the ids that all know.

    Args:
        members: (teacher, weight) pairs, each teacher a single model; the weights are made to add up to 1.
    """

    def __init__(self, members: Sequence[tuple[Teacher, float]]) -> None:
        if not members or any(weight <= 0 for _, weight in members):
            raise UsageError(f"wanted teachers with weights above 0, got weights {[weight for _, weight in members]}")
        if any(teacher.network is None for teacher, _ in members):
            raise UsageError("wanted single models as members of an ensemble, got a mixture or an endpoint")
        total = sum(weight for _, weight in members)
        self._members = [(teacher, weight / total) for teacher, weight in members]

    def __call__(self, rows: Sequence[Tokens], passes: Passes = PASSES) -> Heard:
        """See `Teacher`."""
        parts: list[Part] = []
        for teacher, weight in self._members:
            said = cast("Heard", teacher(rows, passes))  # a single model's
            parts += [replace(part, weight=weight) for part in said.parts]
        return Heard(tuple(parts)).cut(self.vocabulary)

    @property
    def vocabulary(self) -> int:
        """See `Teacher`."""
        return min(teacher.vocabulary for teacher, _ in self._members)

    @property
    def identity(self) -> str:
        """See `Teacher`."""
        return " ".join(teacher.identity for teacher, _ in self._members)

    @property
    def positions(self) -> int | None:
        """See `Teacher`."""
        return min((n for teacher, _ in self._members if (n := teacher.positions) is not None), default=None)

    def step(self, update: int) -> None:
        """See `Teacher`."""
        for teacher, _ in self._members:
            teacher.step(update)

    def tensors(self) -> dict[str, Tensor]:
        """See `Teacher`."""
        return {
            f"{i}|{name}": t for i, (teacher, _) in enumerate(self._members) for name, t in teacher.tensors().items()
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """See `Teacher`."""
        for i, (teacher, _) in enumerate(self._members):
            begins = f"{i}|"
            teacher.load({name.removeprefix(begins): t for name, t in tensors.items() if name.startswith(begins)})
