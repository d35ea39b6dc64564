"""Per-token objectives as fused passes from hidden states: chunked, exact over the full vocabulary.

Each objective is a final class with one method: log-probabilities of student and teacher for a chunk of rows ->
loss of each row and its gradient with respect to the student's logits. `fused_loss` does the rest: it projects chunk by
chunk, forms the gradient in the forward pass, and keeps nothing of size [rows, vocabulary].
Knows no models, rows or episodes.
"""

from __future__ import annotations

from typing import Any, Protocol, final

import torch
from torch import Tensor

_CHUNK_BYTES = 32 << 20


class Objective(Protocol):
    """A divergence between student and teacher, or a likelihood, at one position."""

    needs_teacher: bool

    def __call__(self, student: Tensor, teacher: Tensor | None, said: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and gradient of a chunk.

        Args:
            student: Log-probabilities of the student [rows, vocabulary].
            teacher: Log-probabilities of the teacher, same shape; None if not needed.
            said: The id that was sampled at each position [rows].

        Returns:
            Loss of each row in nats [rows], and d loss / d student logits [rows, vocabulary].
        """
        ...


@final
class ReverseKL:
    """KL(student || teacher) = sum_v p_v (log p_v - log q_v): OPCD, arXiv 2602.12275, Eq. 1-2.

    Gradient with respect to the logits: p_v (log p_v - log q_v - KL).
    """

    needs_teacher = True

    def __call__(self, student: Tensor, teacher: Tensor | None, said: Tensor) -> tuple[Tensor, Tensor]:
        """See `Objective`."""
        assert teacher is not None
        p = student.exp()
        ratio = student - teacher
        loss = (p * ratio).sum(-1)
        return loss, p * (ratio - loss[:, None])


@final
class ForwardKL:
    """KL(teacher || student) = sum_v q_v (log q_v - log p_v); gradient p_v - q_v."""

    needs_teacher = True

    def __call__(self, student: Tensor, teacher: Tensor | None, said: Tensor) -> tuple[Tensor, Tensor]:
        """See `Objective`."""
        assert teacher is not None
        q = teacher.exp()
        return (q * (teacher - student)).sum(-1), student.exp() - q


@final
class NegativeLogLikelihood:
    """-log p(said), supervised fine-tuning; gradient p_v - [v = said]."""

    needs_teacher = False

    def __call__(self, student: Tensor, teacher: Tensor | None, said: Tensor) -> tuple[Tensor, Tensor]:
        """See `Objective`."""
        gradient = student.exp()
        gradient.scatter_add_(1, said[:, None], gradient.new_full((len(said), 1), -1.0))
        return -student.gather(1, said[:, None])[:, 0], gradient


class _Fused(torch.autograd.Function):
    """Gradient formed in the forward pass; backward only scales it."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head: Tensor,
        teacher_hidden: Tensor | None,
        teacher_head: Tensor | None,
        said: Tensor,
        weights: Tensor,
        objective: Objective,
    ) -> tuple[Tensor, Tensor]:
        losses = hidden.new_empty(len(hidden), dtype=torch.float32)
        d_hidden = torch.empty_like(hidden)
        d_head = torch.zeros_like(head) if head.requires_grad else None
        for rows in torch.arange(len(hidden), device=hidden.device).split(chunk_rows(head)):
            ours = torch.log_softmax((hidden[rows] @ head.T).float(), -1)
            theirs = None
            if objective.needs_teacher:
                assert teacher_hidden is not None
                assert teacher_head is not None
                theirs = torch.log_softmax((teacher_hidden[rows] @ teacher_head.T).float(), -1)
            losses[rows], gradient = objective(ours, theirs, said[rows])
            gradient = (gradient * weights[rows, None]).to(hidden.dtype)
            d_hidden[rows] = gradient @ head
            if d_head is not None:
                d_head.addmm_(gradient.T, hidden[rows])
        ctx.save_for_backward(d_hidden, d_head)
        ctx.mark_non_differentiable(losses)
        return (losses * weights).sum(), losses

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor | None, ...]:
        scale: Tensor = grad_outputs[0]
        d_hidden, d_head = ctx.saved_tensors
        return d_hidden * scale, None if d_head is None else d_head * scale, None, None, None, None, None


def chunk_rows(head: Tensor) -> int:
    """Rows of one chunk: as many as fit the byte budget at this vocabulary, at least 16."""
    return max(16, _CHUNK_BYTES // (4 * head.shape[0]))


def fused_loss(
    objective: Objective,
    hidden: Tensor,
    head: Tensor,
    teacher_hidden: Tensor | None,
    teacher_head: Tensor | None,
    said: Tensor,
    weights: Tensor,
) -> tuple[Tensor, Tensor]:
    """Weighted sum of an objective over positions.

    Args:
        objective: What is measured at each position.
        hidden: Student's last hidden states [rows, size]; gradient flows here.
        head: Student's output embedding [vocabulary, size]; gradient flows here if it requires one.
        teacher_hidden: Teacher's hidden states [rows, its size]; no gradient. None if not needed.
        teacher_head: Teacher's output embedding [vocabulary, its size].
        said: Sampled ids [rows].
        weights: Weight of each row in the sum [rows].

    Returns:
        The scalar loss in nats, and the detached loss of each row [rows].
    """
    return _Fused.apply(hidden, head, teacher_hidden, teacher_head, said, weights, objective)  # pyright: ignore[reportReturnType]
