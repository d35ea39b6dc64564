"""The learner: examples in, one optimiser step, metrics out. Knows no environment, bank or tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from transformers import PreTrainedModel

from opcd_agents.learner.forward import FrozenStates, student_states
from opcd_agents.learner.objectives import ForwardKL, Objective, fused_loss
from opcd_agents.policies.loading import head_of
from opcd_agents.types import Example

Average = Literal["token", "sequence"]


@dataclass(frozen=True)
class Metrics:
    """What one update did.

    Attributes:
        loss: The objective, averaged as asked, in nats.
        anchor: Mean KL to the initial weights on the anchors, in nats, times their weight.
        first_token: Mean loss at the first sampled id of each row; a template mismatch shows here.
        grad_norm: Norm of the gradient before clipping.
        sampled: Sampled ids learnt from.
        encoded: Ids that the student encoded, padding left out.
    """

    loss: float
    anchor: float
    first_token: float
    grad_norm: float
    sampled: int
    encoded: int


class Learner:
    """Updates a student towards an objective.

    Args:
        student: The model to train, changed in place: those of its parameters that require a gradient.
        teacher: The frozen model that reads the teacher rows and holds the anchors; None where neither is wanted.
        objective: What is minimised.
        lr: Peak learning rate of AdamW.
        average: `token`: mean over all sampled ids; `sequence`: mean over rows of each row's mean (Eq. 1).
        clip: Largest gradient norm.
        pull: How much of the way back to the weights of now each update goes, times its `scale`.
        row_tokens: Most ids in one forward pass, padding included.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        teacher: PreTrainedModel | None,
        objective: Objective,
        *,
        lr: float,
        average: Average = "token",
        clip: float = 1.0,
        pull: float = 0.0,
        row_tokens: int = 8192,
    ) -> None:
        self.student = student
        self.teacher = FrozenStates(teacher) if teacher is not None else None
        self.objective = objective
        self._trained = [parameter for parameter in student.parameters() if parameter.requires_grad]
        self._home = [parameter.detach().clone() for parameter in self._trained] if pull else []
        self._pull = pull
        self.optimizer = torch.optim.AdamW(self._trained, lr=lr, betas=(0.9, 0.98), weight_decay=0.0)
        self.lr = lr
        self._average = average
        self._clip = clip
        self._row_tokens = row_tokens

    def update(
        self, examples: Sequence[Example], anchors: Sequence[Example] = (), *, hold: float = 1.0, scale: float = 1.0
    ) -> Metrics:
        """One optimiser step.

        Args:
            examples: What is learnt; at least one.
            anchors: What must stay as it is: the student is held to the teacher's weights on these rows by
                forward KL, averaged like the examples.
            hold: Weight of the anchors against the examples.
            scale: Factor of the learning rate for this step.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * scale
        self.optimizer.zero_grad(set_to_none=True)
        loss, first = self._accumulate(examples, self.objective)
        held, _ = self._accumulate(anchors, ForwardKL(), hold) if anchors else (0.0, 0.0)
        norm = float(torch.nn.utils.clip_grad_norm_(self.student.parameters(), self._clip))
        self.optimizer.step()
        self._return(self._pull * scale)
        sampled = sum(sum(e.student.sampled) for e in examples)
        encoded = sum(len(e.student.ids) for e in (*examples, *anchors))
        return Metrics(loss, held, first, norm, sampled, encoded)

    @torch.no_grad()
    def _return(self, part: float) -> None:
        """Go a part of the way back to where the training began."""
        if part:
            for parameter, home in zip(self._trained, self._home, strict=True):
                parameter.lerp_(home, part)

    def _accumulate(
        self, examples: Sequence[Example], objective: Objective, factor: float = 1.0
    ) -> tuple[float, float]:
        """Add `factor` times the gradient of an objective; returns its average times that, and that at the first ids."""
        weights = [factor * weight for weight in self._weights(examples)]
        sums = [
            self._backward([examples[i] for i in part], [weights[i] for i in part], objective)
            for part in self._parts(examples)
        ]
        return sum(loss for loss, _ in sums), sum(first for _, first in sums) / len(examples)

    def _weights(self, examples: Sequence[Example]) -> list[float]:
        counts = [sum(e.student.sampled) for e in examples]
        if self._average == "token":
            return [1 / sum(counts)] * len(counts)
        return [1 / (len(counts) * n) for n in counts]

    def _parts(self, examples: Sequence[Example]) -> Iterator[list[int]]:
        """Micro-batches of rows of like length, by a budget of ids with padding."""
        order = sorted(range(len(examples)), key=lambda i: len(examples[i].student.ids))
        part: list[int] = []
        for i in order:
            if part and (len(part) + 1) * len(examples[i].student.ids) > self._row_tokens:
                yield part
                part = []
            part.append(i)
        yield part

    def _backward(
        self, examples: Sequence[Example], weights: Sequence[float], objective: Objective
    ) -> tuple[float, float]:
        """Accumulate the gradient of some rows; returns their weighted loss and the sum of first-id losses."""
        rows = [e.student for e in examples]
        device = self.student.device
        counts = torch.tensor([sum(row.sampled) for row in rows], device=device)
        said = torch.tensor([i for row in rows for i in row.said], device=device)
        theirs = head = None
        if objective.needs_teacher:
            assert self.teacher is not None
            theirs = self.teacher([e.teacher for e in examples])
            head = head_of(self.teacher.network).weight
        hidden = student_states(self.student, rows)
        each = torch.tensor(weights, device=device).repeat_interleave(counts)
        loss, losses = fused_loss(objective, hidden, head_of(self.student).weight, theirs, head, said, each)
        loss.backward()
        firsts = counts.cumsum(0) - counts
        return float(loss.detach()), float(losses[firsts].sum())
