"""Fused objectives against dense float64 formulas and finite differences."""

import pytest
import torch
from torch import Tensor

from opcd_agents.learner import objectives
from opcd_agents.learner.objectives import ForwardKL, NegativeLogLikelihood, ReverseKL, fused_loss


def dense(name: str, student: Tensor, teacher: Tensor, said: Tensor) -> Tensor:
    p, q = torch.log_softmax(student, -1), torch.log_softmax(teacher, -1)
    if name == "ReverseKL":
        return (p.exp() * (p - q)).sum(-1)
    if name == "ForwardKL":
        return (q.exp() * (q - p)).sum(-1)
    return -p.gather(1, said[:, None])[:, 0]


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def case(request):
    torch.manual_seed(1)
    n, v = 50, 97
    dtype = request.param
    hidden = torch.randn(n, 8, dtype=dtype, requires_grad=True)
    head = torch.randn(v, 8, dtype=dtype, requires_grad=True)
    theirs, their_head = torch.randn(n, 6, dtype=dtype), torch.randn(v, 6, dtype=dtype)
    return hidden, head, theirs, their_head, torch.randint(v, (n,)), torch.rand(n, dtype=dtype)


@pytest.mark.parametrize(
    "objective", [ReverseKL(), ForwardKL(), NegativeLogLikelihood()], ids=lambda o: type(o).__name__
)
@pytest.mark.parametrize("chunk", [7, 50, 1000])
def test_equals_the_dense_formula(case, objective, chunk, monkeypatch):
    monkeypatch.setattr(objectives, "chunk_rows", lambda _head: chunk)
    hidden, head, theirs, their_head, said, weights = case
    loss, each = fused_loss(objective, hidden, head, theirs, their_head, said, weights)
    loss.backward()
    h, w = hidden.detach().double().requires_grad_(), head.detach().double().requires_grad_()
    rows = dense(type(objective).__name__, h @ w.T, theirs.double() @ their_head.double().T, said)
    expected = (rows * weights.double()).sum()
    expected.backward()
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(each.double(), rows.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(hidden.grad.double(), h.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(head.grad.double(), w.grad, rtol=1e-4, atol=1e-5)


def test_same_distributions_cost_nothing():
    hidden, head = torch.randn(9, 4, requires_grad=True), torch.randn(11, 4)
    for objective in (ReverseKL(), ForwardKL()):
        loss, _ = fused_loss(
            objective, hidden, head, hidden.detach(), head, torch.zeros(9, dtype=torch.long), torch.ones(9)
        )
        (gradient,) = torch.autograd.grad(loss, hidden)
        assert abs(loss.item()) < 1e-6
        assert gradient.abs().max() < 1e-6


def test_a_frozen_head_gets_no_gradient():
    hidden, head = torch.randn(9, 4, requires_grad=True), torch.randn(11, 4)
    loss, _ = fused_loss(
        ReverseKL(),
        hidden,
        head,
        torch.randn(9, 4),
        torch.randn(11, 4),
        torch.zeros(9, dtype=torch.long),
        torch.ones(9),
    )
    loss.backward()
    assert head.grad is None
    assert hidden.grad is not None
    assert hidden.grad.abs().sum() > 0


def test_reverse_kl_is_never_negative():
    torch.manual_seed(0)
    for scale in (0.01, 1.0, 30.0):
        p, q = (torch.log_softmax(scale * torch.randn(200, 31), -1) for _ in range(2))
        loss, _ = ReverseKL()(p, q, torch.zeros(200, dtype=torch.long))
        assert loss.min() >= -1e-5
