"""What two distributions are compared over: the whole vocabulary, or a few ids and what becomes of the rest.

An objective gives the slope of a row's loss in each outcome's log-probability; `Outcomes.pull` carries those back to the
logits. Knows no divergence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Support = Literal["exact", "student", "teacher", "union"]
Tail = Literal["bucket", "renormalise", "truncate"]

_NEVER = -1e4  # log-probability of an outcome that counts for nothing; finite, so that differences are 0 and not NaN


@dataclass(frozen=True)
class Outcomes:
    """Outcomes of some rows, and the way back to the student's logits.

    Attributes:
        student: Student's log-probability of each outcome [rows, outcomes].
        teacher: Teacher's, same shape.
        vocabulary: Student's probabilities [rows, vocabulary].
        ids: The ids that are outcomes of their own [rows, n], the first n outcomes; None: every id is.
        tail: `bucket`: one more outcome is the rest of the vocabulary; `renormalise`: probabilities sum to 1 over `ids`;
            `truncate`: the rest is left out.
    """

    student: Tensor
    teacher: Tensor
    vocabulary: Tensor
    ids: Tensor | None = None
    tail: Tail = "bucket"

    @property
    def p(self) -> Tensor:
        """Student's probability of each outcome."""
        return self.vocabulary if self.ids is None else self.student.exp()

    @property
    def q(self) -> Tensor:
        """Teacher's probability of each outcome."""
        return probabilities(self.teacher) if self.ids is None else self.teacher.exp()

    def pull(self, slopes: Tensor) -> Tensor:
        """Gradient with respect to the student's logits.

        With g_j the slope of outcome j and S their sum, the logit of id v gets g_v - p_v S where v is an outcome of its
        own, and p_v (g_rest / p_rest - S) where it is in the bucket; renormalising replaces g_j by g_j - p_j S first.

        Args:
            slopes: d loss / d log-probability of each outcome, each taken for itself [rows, outcomes]; overwritten.
        """
        if self.ids is None:
            return slopes.addcmul_(self.vocabulary, slopes.sum(-1, keepdim=True), value=-1)
        total = slopes.sum(-1, keepdim=True)
        if self.tail == "renormalise":
            slopes.addcmul_(self.p, total, value=-1)
            return torch.zeros_like(self.vocabulary).scatter_add_(1, self.ids, slopes)
        gradient = self.vocabulary * -total
        if self.tail == "bucket":
            rest = self.vocabulary.scatter(1, self.ids, 0.0)
            gradient.addcmul_(rest, slopes[:, -1:] / self.p[:, -1:])
        return gradient.scatter_add_(1, self.ids, slopes[:, : self.ids.shape[1]])


def outcomes(student: Tensor, teacher: Tensor, support: Support, k: int, tail: Tail) -> Outcomes:
    """What two distributions are compared over.

    Args:
        student: Log-probabilities of the student [rows, vocabulary].
        teacher: The teacher's, same shape.
        support: `exact`: the whole vocabulary; else the `k` likeliest ids of one side or of either.
        k: How many ids of a side.
        tail: What becomes of the ids outside the support.
    """
    p = probabilities(student)
    if support == "exact":
        return Outcomes(student, teacher, p)
    ids, twice = _chosen(student, teacher, support, min(k, student.shape[1]))
    ours, theirs = (x.gather(1, ids).masked_fill_(twice, _NEVER) for x in (student, teacher))
    if tail == "bucket":
        ours = torch.cat([ours, _rest(p, ids)], 1)
        theirs = torch.cat([theirs, _rest(probabilities(teacher), ids)], 1)
    elif tail == "renormalise":
        ours, theirs = torch.log_softmax(ours, -1), torch.log_softmax(theirs, -1)
    return Outcomes(ours, theirs, p, ids, tail)


def probabilities(logs: Tensor) -> Tensor:
    """The exponential of log-probabilities of a whole vocabulary, summing to 1 more closely than they do.

    `softmax` is several times faster than `exp` on some CPUs, but over 100,000 ids its sum is only good to 1e-5.
    """
    p = torch.softmax(logs, -1)
    return p.div_(p.sum(-1, keepdim=True))


def tempered(logs: Tensor, temperature: float) -> Tensor:
    """Log-probabilities at a temperature, from those at 1."""
    return logs if temperature == 1 else torch.log_softmax(logs / temperature, -1)


def _chosen(student: Tensor, teacher: Tensor, support: Support, k: int) -> tuple[Tensor, Tensor]:
    """The ids of a support [rows, n], and which of them stand there a second time."""
    sides = [side for side, name in ((student, "student"), (teacher, "teacher")) if support in (name, "union")]
    ids = torch.cat([side.topk(k, -1, sorted=False).indices for side in sides], 1).sort(-1).values
    return ids, torch.nn.functional.pad(ids[:, 1:] == ids[:, :-1], (1, 0))


def _rest(mass: Tensor, ids: Tensor) -> Tensor:
    """Logarithm of the mass outside some ids [rows, 1], summed there: 1 - (mass inside) would round away."""
    rest = mass.scatter(1, ids, 0.0).sum(-1, keepdim=True)
    return rest.clamp_(min=torch.finfo(rest.dtype).tiny).log_()
