"""Objectives row by row: against float64 formulas with plain autograd, closed forms, bounds and limits."""

import itertools
import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from opcd_agents.errors import UnknownNameError, UsageError
from opcd_agents.learner.objectives import (
    Divergence,
    ForwardKL,
    NegativeLogLikelihood,
    ReverseKL,
    SampledKL,
    released,
)

TINY = torch.finfo(torch.float64).tiny


def divergence(**named) -> Divergence:
    """One without its warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Divergence(**named)


def dense(objective, student: Tensor, teacher: Tensor, said: Tensor) -> Tensor:
    """The loss of each row from logits, in plain operations for autograd."""
    if isinstance(objective, Divergence):
        a, b = (torch.log_softmax(z / objective.temperature, -1) for z in (student, teacher))
        return torch.stack([dense_row(objective, *row) for row in zip(a, b, strict=True)])
    a, b = torch.log_softmax(student, -1), torch.log_softmax(teacher, -1)
    if isinstance(objective, ReverseKL):
        return (a.exp() * (a - b)).sum(-1)
    if isinstance(objective, ForwardKL):
        return (b.exp() * (b - a)).sum(-1)
    return -torch.log_softmax(student / objective.temperature, -1).gather(1, said[:, None])[:, 0]


def dense_row(objective: Divergence, a: Tensor, b: Tensor) -> Tensor:
    """Divergence of two rows of log-probabilities."""
    beta = objective.beta
    if objective.support != "exact":
        a, b = dense_support(objective, a, b)
    p, q = a.exp(), b.exp()
    if beta in (0, 1):
        terms = p * (a - b) if beta else q * (b - a)
    else:
        m = (1 - beta) * p + beta * q
        terms = beta * q * (q / m).log() + (1 - beta) * p * (p / m).log()
    return terms.clamp(max=objective.clip).sum()


def dense_support(objective: Divergence, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    k = min(objective.k, len(a))
    chosen = {
        i for name, x in (("student", a), ("teacher", b)) if objective.support in (name, "union") for i in top(x, k)
    }
    inside = torch.tensor(sorted(chosen))
    outside = torch.tensor([i for i in range(len(a)) if i not in chosen], dtype=torch.long)
    if objective.tail == "bucket" and len(outside):
        p, q = (torch.cat([x[inside], x[outside].logsumexp(0)[None]]) for x in (a, b))
    elif objective.tail == "renormalise":
        p, q = (x[inside] - x[inside].logsumexp(0) for x in (a, b))
    else:
        p, q = a[inside], b[inside]
    return p, q


def top(row: Tensor, k: int) -> list[int]:
    return row.detach().topk(k).indices.tolist()


def logits(rows: int, v: int, scale: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    a, b = (scale * torch.randn(rows, v, dtype=torch.float64, generator=generator) for _ in range(2))
    return a, (a + b) / 2


def off(got: Tensor | None, wanted: Tensor | None) -> float:
    """Relative distance."""
    assert got is not None
    assert wanted is not None
    return float((got.double() - wanted).norm() / wanted.norm().clamp(min=TINY))


EXACT = [
    divergence(beta=beta, clip=clip, temperature=t)
    for beta, clip, t in itertools.product((0.0, 0.3, 1.0), (math.inf, 0.02), (1.0, 0.6))
]
CUT = [
    divergence(beta=beta, support=support, k=5, tail=tail, clip=clip, temperature=t)
    for beta, support, tail, clip, t in itertools.product(
        (0.0, 0.3, 1.0),
        ("student", "teacher", "union"),
        ("bucket", "renormalise", "truncate"),
        (math.inf, 0.02),
        (1.0, 0.6),
    )
]
PROPER = [objective for objective in CUT if objective.tail != "truncate"]
SIMPLE = [ReverseKL(), ForwardKL(), NegativeLogLikelihood(), NegativeLogLikelihood(0.7)]


@pytest.mark.parametrize("objective", [*SIMPLE, *EXACT, *CUT], ids=repr)
def test_loss_and_gradient_are_those_of_the_formula(objective):
    student, teacher = logits(12, 41, 1.5)
    said = torch.arange(12)
    z = student.clone().requires_grad_()
    wanted = dense(objective, z, teacher, said)
    wanted.sum().backward()
    for dtype, near in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        a, b = (torch.log_softmax(x, -1).to(dtype) for x in (student, teacher))
        before = a.clone(), b.clone()
        loss, gradient = objective(a, b, said)
        assert loss.dtype == gradient.dtype == dtype
        assert off(loss, wanted.detach()) < near
        assert off(gradient, z.grad) < near
        assert torch.equal(a, before[0])
        assert torch.equal(b, before[1])


@pytest.mark.parametrize("clip", [math.inf, 0.5])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sampled_kl_is_a_policy_gradient(clip, temperature):
    student, teacher = logits(30, 11, 2.0)
    said = torch.arange(30) % 11
    z = student.clone().requires_grad_()
    a, b = (torch.log_softmax(x / temperature, -1).gather(1, said[:, None])[:, 0] for x in (z, teacher))
    advantage = (b - a).detach().clamp(-clip, clip)
    (-advantage * a).sum().backward()
    objective = SampledKL(clip, temperature)
    loss, gradient = objective(torch.log_softmax(student, -1), torch.log_softmax(teacher, -1), said)
    torch.testing.assert_close(loss, -advantage)
    torch.testing.assert_close(gradient, z.grad)
    assert (loss.abs().max() == clip) == (clip < math.inf)


def test_sampled_kl_is_on_average_the_reverse_kl():
    student, teacher = (torch.log_softmax(x, -1).expand(11, 11) for x in logits(1, 11, 2.0))
    p = student[0].exp()
    loss, gradient = SampledKL()(student, teacher, torch.arange(11))  # each id once, weighted by its probability
    wanted, slope = ReverseKL()(student, teacher, torch.arange(11))
    torch.testing.assert_close((p * loss).sum(), wanted[0])
    torch.testing.assert_close(p @ gradient, slope[0])


@pytest.mark.parametrize("temperature", [0.3, 0.7, 1.0, 1.5])
def test_sampled_kl_is_unbiased_at_the_temperature_of_sampling(temperature):
    """Over all ids, each as often as it is drawn: KL of what is sampled from, and its gradient in the logits."""
    student, teacher = logits(1, 11, 2.0)
    z = student.clone().requires_grad_()
    a, b = (torch.log_softmax(x[0] / temperature, -1) for x in (z, teacher))
    wanted = (a.exp() * (a - b)).sum()
    wanted.backward()
    ours, theirs = (torch.log_softmax(x, -1).expand(11, 11) for x in (student, teacher))
    loss, gradient = SampledKL(temperature=temperature)(ours, theirs, torch.arange(11))
    drawn = a.detach().exp()
    torch.testing.assert_close(drawn @ loss, wanted.detach())
    torch.testing.assert_close((drawn @ gradient)[None], z.grad)
    if temperature != 1:  # taken at another temperature than it was drawn at, it goes elsewhere
        assert off((drawn @ SampledKL()(ours, theirs, torch.arange(11))[1])[None], z.grad) > 0.05


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.5])
def test_weighted_likelihood_is_the_policy_gradient_of_what_was_sampled_from(temperature):
    student, rewards = logits(1, 11, 2.0)
    z = student.clone().requires_grad_()
    drawn = torch.softmax(z[0] / temperature, -1)
    (-drawn @ rewards[0]).backward()
    every = torch.log_softmax(student, -1).expand(11, 11)
    _, gradient = NegativeLogLikelihood(temperature)(every, None, torch.arange(11))
    torch.testing.assert_close(((drawn.detach() * rewards[0]) @ gradient)[None], z.grad)


@pytest.mark.parametrize("objective", [ReverseKL(), ForwardKL(), SampledKL(), *EXACT, *PROPER], ids=repr)
def test_same_distributions_cost_nothing(objective):
    student = torch.log_softmax(3 * torch.randn(20, 50, generator=torch.Generator().manual_seed(3)), -1)
    loss, gradient = objective(student, student.clone(), torch.arange(20))
    assert loss.abs().max() < 1e-6
    assert gradient.abs().max() < 1e-6


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 10**6),
    st.floats(0.01, 30),
    st.integers(1, 40),
    st.sampled_from(["student", "teacher", "union"]),
    st.sampled_from([0.0, 0.1, 0.5, 1.0]),
)
def test_a_bucket_is_a_lower_bound_and_exact_in_the_end(seed, scale, k, support, beta):
    a, b = (torch.log_softmax(x, -1) for x in logits(4, 31, scale, seed))
    said = torch.zeros(4, dtype=torch.long)
    whole, slopes = Divergence(beta)(a, b, said)
    part, gradient = Divergence(beta, support, k)(a, b, said)
    assert (part >= -1e-12).all()
    assert (part <= whole + 1e-9 * (1 + whole)).all()
    if k >= 31:
        torch.testing.assert_close(part, whole)
        torch.testing.assert_close(gradient, slopes)


def test_a_bucket_counts_a_mass_that_one_minus_the_rest_would_lose():
    student, teacher = torch.zeros(1, 9), torch.zeros(1, 9)
    student[0, 0], teacher[0, 0] = 30.0, 22.0
    a, b = torch.log_softmax(student, -1), torch.log_softmax(teacher, -1)
    _, gradient = Divergence(support="student", k=1)(a, b, torch.zeros(1, dtype=torch.long))
    _, slopes = ReverseKL()(a.double(), b.double(), torch.zeros(1, dtype=torch.long))
    assert off(gradient[0, 1:], slopes[0, 1:]) < 1e-4


def test_truncation_may_be_negative_and_pushes_mass_out():
    student, teacher = (torch.tensor([row], dtype=torch.float64).log() for row in ([0.5, 0.3, 0.2], [0.9, 0.06, 0.04]))
    with pytest.warns(UserWarning, match="no divergence"):
        truncated = Divergence(support="student", k=1, tail="truncate")
    loss, _ = truncated(student, teacher, torch.zeros(1, dtype=torch.long))
    assert loss.item() == pytest.approx(0.5 * math.log(0.5 / 0.9))
    _, gradient = truncated(student, student, torch.zeros(1, dtype=torch.long))  # nothing left to learn
    torch.testing.assert_close(gradient, torch.tensor([[0.25, -0.15, -0.10]], dtype=torch.float64))


def test_truncation_has_its_closed_form_gradient():
    a, b = (torch.log_softmax(x, -1) for x in logits(10, 33, 2.0))
    p, r = a.exp(), a - b
    inside = torch.zeros_like(p).scatter_(1, p.topk(6).indices, 1.0)
    total, mass = (inside * p * r).sum(-1, keepdim=True), (inside * p).sum(-1, keepdim=True)
    wanted = p * (inside * (r + 1) - total - mass)
    loss, gradient = divergence(support="student", k=6, tail="truncate")(a, b, torch.zeros(10, dtype=torch.long))
    torch.testing.assert_close(loss, total[:, 0])
    torch.testing.assert_close(gradient, wanted)


def test_the_mixture_tends_to_both_ends_when_divided():
    a, b = (torch.log_softmax(x, -1) for x in logits(5, 13, 1.0))
    said = torch.zeros(5, dtype=torch.long)
    for beta, share, end in ((1e-6, 1e-6, ForwardKL()), (1 - 1e-6, 1e-6, ReverseKL())):
        loss, gradient = Divergence(beta)(a, b, said)
        for got, wanted in zip((loss / share, gradient / share), end(a, b, said), strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("support", ["exact", "student", "teacher", "union"])
def test_far_apart_distributions_stay_finite(beta, support):
    a, b = (torch.log_softmax(300 * torch.eye(4, 20).roll(shift, 0), -1) for shift in (0, 1))
    for x in Divergence(beta, support, k=2)(a, b, torch.zeros(4, dtype=torch.long)):
        assert x.isfinite().all()


@pytest.mark.parametrize(("setting", "temperature"), [("games", 0.7), ("math", 0.6)])
def test_the_released_code_as_a_preset(setting, temperature):
    with pytest.warns(UserWarning, match="released OPCD code"):
        preset = released(setting)
    assert preset == divergence(support="student", k=256, tail="truncate", temperature=temperature)


@pytest.mark.parametrize(
    "named", [{"beta": -0.1}, {"beta": math.nan}, {"k": 0}, {"clip": 0.0}, {"temperature": 0.0}], ids=str
)
def test_values_that_make_no_sense_are_refused(named):
    with pytest.raises(UsageError, match="wanted"):
        Divergence(**named)


def test_unknown_names_are_refused():
    with pytest.raises(UnknownNameError, match="did you mean 'student'"):
        divergence(support="students")
    with pytest.raises(UnknownNameError, match="bucket"):
        divergence(support="student", tail="buckets")
    with pytest.raises(UnknownNameError, match="games"):
        released("game")
    with pytest.raises(UsageError, match="clip"):
        SampledKL(clip=-1.0)
    for cold in (lambda: SampledKL(temperature=0.0), lambda: NegativeLogLikelihood(0.0)):
        with pytest.raises(UsageError, match="wanted a temperature above 0"):
            cold()
