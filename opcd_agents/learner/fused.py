"""The one path from hidden states to an objective: chunked, its gradient formed in the forward pass.

Two buffers of logits serve every chunk; blocks of a few rows, small enough for a CPU's cache, go through the objective one
by one and leave their gradient in the student's buffer. Nothing of size [rows, vocabulary] is kept. Heads may be
bfloat16; log-probabilities and losses are float32 then, float64 for float64. NaN and infinity pass through.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from opcd_agents.errors import ModelError, UsageError
from opcd_agents.learner.objectives import Objective
from opcd_agents.learner.saying import Heard, Saying
from opcd_agents.learner.support import probabilities, tempered

_CHUNK_BYTES = 128 << 20  # of logits, both models'
_CHUNK_ROWS = 16, 256  # fewer make slower products, more make none faster
_BLOCK_BYTES = 2 << 20  # of one model's log-probabilities


@dataclass(frozen=True)
class Sampler:
    """Who drew the sampled ids, for truncated importance weights min(p(said) / p_sampler(said), cap), held fixed.

    Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training" (TIS).

    Attributes:
        logprobs: Log-probability of each sampled id as it was drawn [rows].
        cap: Largest weight.
        temperature: What the logits were divided by when it was drawn; the student's are too, for its weight.
    """

    logprobs: Tensor
    cap: float = math.inf
    temperature: float = 1.0


@dataclass(frozen=True)
class Statistics:
    """What the pass saw of each row, in nats and at temperature 1.

    Attributes:
        said: Student's log-probability of the sampled id.
        student_entropy: Entropy of the student.
        teacher_entropy: Entropy of the teacher; NaN without one, or where it does not tell whole distributions.
        student_mass: Student's probability of its own top k.
        teacher_mass: Teacher's probability of its own top k; NaN as there.
    """

    said: Tensor
    student_entropy: Tensor
    teacher_entropy: Tensor
    student_mass: Tensor
    teacher_mass: Tensor


@dataclass(frozen=True)
class Fused:
    """What a pass gives.

    Attributes:
        loss: Weighted sum over rows; gradients flow from here.
        losses: Loss of each row, before weights.
        statistics: If asked for.
    """

    loss: Tensor
    losses: Tensor
    statistics: Statistics | None


@dataclass(frozen=True)
class _Model:
    """Hidden states [rows, size] and head [vocabulary, size] of one model."""

    hidden: Tensor
    head: Tensor


@dataclass(frozen=True)
class _Task:
    """What is asked of each row."""

    objective: Objective
    said: Tensor
    sampler: Sampler | None
    top: int


@dataclass(frozen=True)
class _Results:
    """What a pass fills in, chunk by chunk; `weights` come in as the caller's and end as those used."""

    losses: Tensor
    weights: Tensor
    statistics: Tensor
    d_hidden: Tensor | None
    d_head: Tensor | None


def fused(
    objective: Objective,
    hidden: Tensor,
    head: Tensor,
    teacher: Saying | None,
    said: Tensor,
    weights: Tensor,
    *,
    sampler: Sampler | None = None,
    top: int = 0,
) -> Fused:
    """Weighted sum of an objective over positions, and what else the pass saw.

    Args:
        objective: What is measured at each position.
        hidden: Student's last hidden states [rows, size]; gradient flows here.
        head: Student's output embedding [vocabulary, size]; gradient flows here if it requires one.
        teacher: What the teacher says of each row; no gradient. None if not needed. Where it is one model with this `head`, that is
            read once for both.
        said: Sampled ids [rows].
        weights: Weight of each row in the sum [rows], of either sign.
        sampler: Asks for importance weights as factors of `weights`.
        top: Asks for statistics, with the mass of this many of the likeliest ids.

    Raises:
        UsageError: The objective needs a teacher and there is none.
        ModelError: The heads' vocabularies differ.
    """
    student = _Model(hidden.detach(), head.detach())
    teacher = _checked(objective, head, teacher)
    dtype = torch.promote_types(head.dtype, torch.float32)
    trained = torch.is_grad_enabled() and (hidden.requires_grad or head.requires_grad)
    results = _Results(
        losses=hidden.new_empty(len(hidden), dtype=dtype),
        weights=weights.to(dtype, copy=True),
        statistics=hidden.new_full((5, len(hidden) if top else 0), math.nan, dtype=dtype),
        d_hidden=torch.empty_like(student.hidden) if trained else None,
        # Sums over chunks in bfloat16 would lose what is small against the sum so far.
        d_head=torch.zeros_like(student.head, dtype=dtype) if trained and head.requires_grad else None,
    )
    with torch.no_grad():
        _run(student, teacher, _Task(objective, said, sampler, top), results)
        loss = (results.losses * results.weights).sum()
    if trained:
        loss = _Known.apply(loss, hidden, head, results.d_hidden, results.d_head)
    return Fused(loss, results.losses, Statistics(*results.statistics) if top else None)  # pyright: ignore[reportArgumentType]


def chunk_rows(*heads: Tensor) -> int:
    """Rows of one chunk: as many as fit the byte budget with logits of these heads, within bounds."""
    least, most = _CHUNK_ROWS
    return min(most, max(least, _CHUNK_BYTES // sum(head.shape[0] * head.element_size() for head in heads)))


def block_rows(head: Tensor) -> int:
    """Rows that go through the objective at once: as many as fit a CPU's cache, or all of a chunk."""
    return max(1, _BLOCK_BYTES // (4 * head.shape[0])) if head.device.type == "cpu" else 1 << 30


class _Known(torch.autograd.Function):
    """A scalar whose gradients are known already; backward only scales them."""

    @staticmethod
    def forward(
        ctx: Any, loss: Tensor, hidden: Tensor, head: Tensor, d_hidden: Tensor, d_head: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(d_hidden, d_head)
        ctx.head_dtype = head.dtype
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor | None, ...]:
        scale: Tensor = grad_outputs[0]
        d_hidden, d_head = ctx.saved_tensors
        return None, d_hidden * scale, None if d_head is None else (d_head * scale).to(ctx.head_dtype), None, None


def _checked(objective: Objective, head: Tensor, teacher: Saying | None) -> Saying | None:
    """The teacher, where the objective needs one."""
    if not objective.needs_teacher:
        return None
    if teacher is None:
        raise UsageError(f"wanted a teacher for {type(objective).__name__}, got none")
    if head.shape[0] != teacher.vocabulary:
        raise ModelError(
            f"wanted one vocabulary for student and teacher, got heads of {head.shape[0]} and {teacher.vocabulary} ids; "
            "take a teacher of the same family, or cut the longer head where both tokenizers agree"
        )
    return teacher


def _run(student: _Model, teacher: Saying | None, task: _Task, results: _Results) -> None:
    """Fill in the results, chunk by chunk."""
    chunk = chunk_rows(student.head, *([student.head] if teacher else []))
    logits = _Logits(student, teacher, min(chunk, len(student.hidden)))
    for rows in _slices(0, len(student.hidden), chunk):
        ours, theirs = logits(rows)
        for block in _slices(rows.start, rows.stop, block_rows(student.head)):
            here = slice(block.start - rows.start, block.stop - rows.start)
            p = torch.log_softmax(ours[here], -1, dtype=results.losses.dtype)
            q = None if theirs is None else torch.log_softmax(theirs[here], -1, dtype=results.losses.dtype)
            _observe(p, q if teacher and teacher.whole else None, block, task, results)
            results.losses[block], ours[here] = task.objective(p, q, task.said[block])
        _gradients(student, ours, rows, results)


def _slices(start: int, stop: int, size: int) -> Iterator[slice]:
    return (slice(i, min(i + size, stop)) for i in range(start, stop, size))


class _Logits:
    """Logits of both models for a chunk, in buffers that the next chunk takes over."""

    def __init__(self, student: _Model, teacher: Saying | None, rows: int) -> None:
        self._student, self._teacher = student, teacher
        single = teacher.parts[0] if isinstance(teacher, Heard) and len(teacher.parts) == 1 else None
        self._single = single
        self._shared = single is not None and _same(student.head, single.head)
        self._ours = student.head.new_empty((1 + self._shared) * rows, student.head.shape[0])
        self._theirs = None if single is None or self._shared else single.head.new_empty(rows, single.head.shape[0])

    def __call__(self, rows: slice) -> tuple[Tensor, Tensor | None]:
        """The student's and the teacher's logits; the caller may overwrite them."""
        n = rows.stop - rows.start
        hidden, single = self._student.hidden[rows], self._single
        if self._shared and single is not None:
            both = torch.cat([hidden, single.hidden[rows]])
            ours, theirs = torch.mm(both, self._student.head.T, out=self._ours[: 2 * n]).split(n)
            return ours, theirs
        ours = torch.mm(hidden, self._student.head.T, out=self._ours[:n])
        if single is not None and self._theirs is not None:
            return ours, torch.mm(single.hidden[rows], single.head.T, out=self._theirs[:n])
        return ours, None if self._teacher is None else self._teacher.logits(rows).to(ours.device)


def _same(a: Tensor, b: Tensor) -> bool:
    return a.data_ptr() == b.data_ptr() and a.shape == b.shape and a.dtype == b.dtype


def _observe(p: Tensor, q: Tensor | None, block: slice, task: _Task, results: _Results) -> None:
    """Importance weights and statistics of a block, from log-probabilities."""
    at = task.said[block, None]
    if task.sampler is not None:
        drawn_at = tempered(p, task.sampler.temperature)
        ratio = (drawn_at.gather(1, at)[:, 0] - task.sampler.logprobs[block]).exp_()
        results.weights[block] *= ratio.clamp_(max=task.sampler.cap)
    if task.top:
        results.statistics[0, block] = p.gather(1, at)[:, 0]
        for side, logs in enumerate((p, q)):
            if logs is not None:
                results.statistics[1 + side, block] = -(probabilities(logs).mul_(logs)).sum(-1)
                likeliest = logs.topk(min(task.top, logs.shape[1]), -1, sorted=False).values
                results.statistics[3 + side, block] = likeliest.exp_().sum(-1)


def _gradients(student: _Model, d_logits: Tensor, rows: slice, results: _Results) -> None:
    """Take a chunk's gradient on to hidden states and head; weights meet it where it is small."""
    weights = results.weights[rows, None]
    if results.d_hidden is not None:
        torch.mm(d_logits, student.head, out=results.d_hidden[rows]).mul_(weights)
    if results.d_head is not None:
        weighted = (student.hidden[rows] * weights).to(d_logits.dtype)
        if results.d_head.dtype == d_logits.dtype:
            results.d_head.addmm_(d_logits.T, weighted)
        else:
            results.d_head.add_(d_logits.T @ weighted)
