"""Per-token objectives: log-probabilities of student and teacher -> loss of each row, and its gradient in the logits.

Pure functions of a few rows, exact over the full vocabulary unless a support is named. `fused` hands them rows and takes
the gradient on to hidden states and head. Knows no models, rows or episodes.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol, final, get_args

import torch
from torch import Tensor

from opcd_agents.errors import UnknownNameError, UsageError
from opcd_agents.learner.support import Outcomes, Support, Tail, outcomes, probabilities, tempered


class Objective(Protocol):
    """A divergence between student and teacher, or a likelihood, at one position."""

    @property
    def needs_teacher(self) -> bool:
        """Whether it reads the teacher's log-probabilities."""
        ...

    def __call__(self, student: Tensor, teacher: Tensor | None, said: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and gradient of some rows.

        Args:
            student: Log-probabilities of the student [rows, vocabulary].
            teacher: Log-probabilities of the teacher, same shape; None if not needed.
            said: The id that was sampled at each position [rows].

        Returns:
            Loss of each row in nats [rows], and d loss / d student logits [rows, vocabulary].
        """
        ...


@final
@dataclass(frozen=True)
class ReverseKL:
    """KL(student || teacher) = sum_v p_v (log p_v - log q_v): OPCD, arXiv 2602.12275, Eq. 1-2.

    Gradient with respect to the logits: p_v (log p_v - log q_v - KL).
    """

    needs_teacher = True

    def __call__(self, student: Tensor, teacher: Tensor | None, said: Tensor) -> tuple[Tensor, Tensor]:
        """See `Objective`."""
        assert teacher is not None
        p = probabilities(student)
        terms = (student - teacher).mul_(p)
        loss = terms.sum(-1)
        return loss, terms.addcmul_(p, loss[:, None], value=-1)


@final
@dataclass(frozen=True)
class ForwardKL:
    """KL(teacher || student) = sum_v q_v (log q_v - log p_v): Hinton et al., arXiv 1503.02531; gradient p_v - q_v."""

    needs_teacher = True

    def __call__(self, student: Tensor, teacher: Tensor | None, said: Tensor) -> tuple[Tensor, Tensor]:
        """See `Objective`."""
        assert teacher is not None
        q = probabilities(teacher)
        loss = (teacher - student).mul_(q).sum(-1)
        return loss, probabilities(student).sub_(q)


@final
@dataclass(frozen=True)
class Divergence:
    """Generalised Jensen-Shannon divergence over a support of one's choice.

    With m = (1 - beta) p + beta q, p the student and q the teacher (GKD, arXiv 2306.13649; beta as in TRL):

        beta KL(q || m) + (1 - beta) KL(p || m) = sum_v beta q_v log(q_v / m_v) + (1 - beta) p_v log(p_v / m_v)

    beta = 0 stands for the forward KL(q || p) and beta = 1 for the reverse KL(p || q). The sum itself goes to 0 at both
    ends, and only divided by beta, or by 1 - beta, to those; so it is small near the ends, and jumps there.

    The defaults are `ReverseKL`. A tail `bucket`, all ids outside the support as one outcome (SDPO, arXiv 2601.20802),
    makes it a lower bound of the whole, never negative. `truncate` is the released OPCD code's sum
    sum_{v in K} p_v r_v, r = log(p / q), whose gradient p_v (r_v + 1 - L - M) inside K and -p_v (L + M) outside, with
    L the sum and M the mass of K, pushes mass out of K.

    Attributes:
        beta: From 0, forward, to 1, reverse.
        support: `exact`, or the top `k` ids of `student`, of `teacher`, or their `union`.
        k: How many ids of a side.
        tail: What becomes of the ids outside the support: `bucket`, `renormalise` over the support, or `truncate`.
        clip: Largest term of the sum; the gradient of a larger one is 0 (OPSD, arXiv 2601.18734: min(l_{n,v}, clip)).
        temperature: Divides the logits of both models first, whatever they were sampled at; the gradient is that of the
            loss as it stands, 1 / temperature included and no temperature^2.
    """

    needs_teacher = True

    beta: float = 1.0
    support: Support = "exact"
    k: int = 256
    tail: Tail = "bucket"
    clip: float = math.inf
    temperature: float = 1.0

    def __post_init__(self) -> None:
        _check_name("support", self.support, get_args(Support))
        _check_name("tail", self.tail, get_args(Tail))
        _check(0 <= self.beta <= 1, "a beta from 0 to 1", self.beta)
        _check(self.k >= 1, "a k of at least 1", self.k)
        _check(self.clip > 0, "a clip above 0", self.clip)
        _check(0 < self.temperature < math.inf, "a temperature above 0", self.temperature)
        if self.support != "exact" and self.tail == "truncate":
            warnings.warn(
                "a truncated sum is no divergence: it can be negative, and unless beta is 0 its gradient pushes mass "
                "out of the support; it is meant for comparison with the released OPCD code, else use tail = 'bucket'",
                UserWarning,
                stacklevel=3,
            )

    def __call__(self, student: Tensor, teacher: Tensor | None, said: Tensor) -> tuple[Tensor, Tensor]:
        """See `Objective`."""
        assert teacher is not None
        student, teacher = (tempered(x, self.temperature) for x in (student, teacher))
        compared = outcomes(student, teacher, self.support, self.k, self.tail)
        terms, slopes = _terms(compared, self.beta)
        if self.clip < math.inf:
            slopes.masked_fill_(terms > self.clip, 0.0)
            terms.clamp_(max=self.clip)
        return terms.sum(-1), _warmed(compared.pull(slopes), self.temperature)


def _terms(of: Outcomes, beta: float) -> tuple[Tensor, Tensor]:
    """Terms of a divergence, and the slope of each in its own log p [rows, outcomes]."""
    if beta == 1:
        terms = of.p * (of.student - of.teacher)
        return terms, terms + of.p
    q = of.q
    if beta == 0:
        return q * (of.teacher - of.student), -q
    mixture = torch.logaddexp(of.student + math.log1p(-beta), of.teacher + math.log(beta))
    slopes = (1 - beta) * of.p * (of.student - mixture)  # what the mixture adds to the slope cancels
    return slopes + beta * q * (of.teacher - mixture), slopes


@final
@dataclass(frozen=True)
class SampledKL:
    """Policy gradient of the reverse KL from the sampled id alone: Lu et al. 2025, "On-Policy Distillation".

    Both p and q are taken at the temperature T that the student drew the id at, so that p is what it was drawn from. The
    loss log p(said) - log q(said), within +-clip, is an unbiased estimate of KL(p || q) where nothing is clipped. The
    gradient is not its derivative but that of -A log p(said) with A = clamp(log q - log p, -clip, clip) held fixed
    (REINFORCE with reward A): A (p_v - [v = said]) / T, on average that of KL(p || q).

    Attributes:
        clip: Largest advantage either way, in nats.
        temperature: At which the ids were drawn.
    """

    needs_teacher = True

    clip: float = math.inf
    temperature: float = 1.0

    def __post_init__(self) -> None:
        _check(self.clip > 0, "a clip above 0", self.clip)
        _check(0 < self.temperature < math.inf, "a temperature above 0", self.temperature)

    def __call__(self, student: Tensor, teacher: Tensor | None, said: Tensor) -> tuple[Tensor, Tensor]:
        """See `Objective`."""
        assert teacher is not None
        at = said[:, None]
        student, teacher = (tempered(x, self.temperature) for x in (student, teacher))
        advantage = (teacher.gather(1, at) - student.gather(1, at)).clamp_(-self.clip, self.clip)
        gradient = probabilities(student).mul_(advantage)
        return -advantage[:, 0], _warmed(gradient.scatter_add_(1, at, -advantage), self.temperature)


@final
@dataclass(frozen=True)
class NegativeLogLikelihood:
    """-log p(said), supervised fine-tuning; gradient (p_v - [v = said]) / T, with p at the temperature T.

    Weighted by advantages of either sign it is the policy gradient of GRPO with one step a batch (arXiv 2402.03300), whose
    policy is the distribution that was sampled: T is the temperature of sampling there.

    Attributes:
        temperature: Divides the logits first.
    """

    needs_teacher = False

    temperature: float = 1.0

    def __post_init__(self) -> None:
        _check(0 < self.temperature < math.inf, "a temperature above 0", self.temperature)

    def __call__(self, student: Tensor, teacher: Tensor | None, said: Tensor) -> tuple[Tensor, Tensor]:
        """See `Objective`."""
        student = tempered(student, self.temperature)
        gradient = probabilities(student)
        gradient.scatter_add_(1, said[:, None], gradient.new_full((len(said), 1), -1.0))
        return -student.gather(1, said[:, None])[:, 0], _warmed(gradient, self.temperature)


def released(setting: str) -> Divergence:
    """A preset: what the released OPCD code optimises (microsoft/LMOps, opcd/, `core_algos.py::kl_penalty`).

    Reverse KL cut to the student's top 256 with nothing for the rest, both models at the rollout's temperature. The
    paper's Eq. 1-2 divides by no temperature. Warns as a truncated `Divergence` does.

    Args:
        setting: `games` (temperature 0.7) or `math` (0.6).
    """
    temperatures = {"games": 0.7, "math": 0.6}
    _check_name("setting", setting, temperatures)
    return Divergence(support="student", k=256, tail="truncate", temperature=temperatures[setting])


def _warmed(gradient: Tensor, temperature: float) -> Tensor:
    """The gradient in the logits from that in logits divided by a temperature; overwritten."""
    return gradient if temperature == 1 else gradient.div_(temperature)


def _check_name(kind: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        raise UnknownNameError(kind, name, known)


def _check(holds: bool, wanted: str, got: float) -> None:
    if not holds:
        raise UsageError(f"wanted {wanted}, got {got}")
