"""From hidden states to gradients: against dense float64, in any chunks, in little memory, in bfloat16."""

import math
from dataclasses import fields

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from opcd_agents.errors import ModelError, UsageError
from opcd_agents.learner import fused as module
from opcd_agents.learner.fused import Sampler, fused
from opcd_agents.learner.objectives import Divergence, ForwardKL, NegativeLogLikelihood, ReverseKL, SampledKL
from opcd_agents.learner.saying import Heard

from .test_objectives import CUT, EXACT, dense, divergence, off

SUM = divergence(beta=0.3, support="union", k=5, clip=0.1, temperature=0.7)


def fused_loss(*args):
    result = fused(*args)
    return result.loss, result.losses


class Case:
    """Rows of two models of different sizes; `rows` of them."""

    def __init__(self, rows=50, v=97, size=8, dtype=torch.float64, shared=False):
        draw = torch.Generator().manual_seed(1)
        self.hidden = torch.randn(rows, size, generator=draw, dtype=torch.float64).to(dtype).requires_grad_()
        self.head = (0.7 * torch.randn(v, size, generator=draw, dtype=torch.float64)).to(dtype).requires_grad_()
        theirs = size if shared else 6
        self.theirs = torch.randn(rows, theirs, generator=draw, dtype=torch.float64).to(dtype)
        other = (0.7 * torch.randn(v, theirs, generator=draw, dtype=torch.float64)).to(dtype)
        self.their_head = self.head if shared else other
        self.said = torch.randint(v, (rows,), generator=draw)
        self.weights = torch.randn(rows, generator=draw, dtype=torch.float64)  # of either sign

    def args(self):
        return self.hidden, self.head, Heard.of(self.theirs, self.their_head), self.said, self.weights

    def dense(self, objective, weights=None):
        """Loss of each row, and the gradients of hidden states and head."""
        h, w = (x.detach().double().requires_grad_() for x in (self.hidden, self.head))
        rows = dense(objective, h @ w.T, self.theirs.double() @ self.their_head.detach().double().T, self.said)
        (rows * (self.weights if weights is None else weights)).sum().backward()
        return rows.detach(), gradient(h), gradient(w)


def gradient(x: torch.Tensor) -> torch.Tensor:
    assert x.grad is not None
    return x.grad


@pytest.fixture(params=[1, 7, 50, 1000])
def chunk(request, monkeypatch):
    monkeypatch.setattr(module, "chunk_rows", lambda *_heads: request.param)
    monkeypatch.setattr(module, "block_rows", lambda _head: 1 + request.param // 3)


def check(case, objective, near):
    loss, each = fused_loss(objective, *case.args())
    loss.backward()
    rows, d_hidden, d_head = case.dense(objective)
    assert off(loss.detach(), (rows * case.weights).sum()) < 10 * near  # signs cancel
    assert off(each, rows) < near
    assert off(gradient(case.hidden), d_hidden) < near
    assert off(gradient(case.head), d_head) < near


@pytest.mark.parametrize("objective", [ReverseKL(), ForwardKL(), NegativeLogLikelihood(0.7), *EXACT, *CUT], ids=repr)
@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=["64", "32"])
def test_equals_the_dense_formula(objective, dtype, near):
    check(Case(dtype=dtype), objective, near)


@pytest.mark.parametrize("objective", [ReverseKL(), NegativeLogLikelihood(), SUM], ids=repr)
@pytest.mark.parametrize("shared", [False, True], ids=["two heads", "one head"])
def test_chunks_do_not_matter(chunk, objective, shared):
    check(Case(shared=shared), objective, 1e-10)


@pytest.mark.parametrize("objective", [ReverseKL(), ForwardKL(), NegativeLogLikelihood(), EXACT[2], SUM], ids=repr)
def test_finite_differences(objective):
    case = Case(rows=3, v=7, size=2)

    def loss(hidden, head):
        return fused_loss(objective, hidden, head, *case.args()[2:])[0]

    assert torch.autograd.gradcheck(loss, (case.hidden, case.head))


def test_the_scale_of_the_loss_reaches_the_gradient():
    case = Case()
    (3 * fused_loss(ReverseKL(), *case.args())[0]).backward()
    _, d_hidden, d_head = case.dense(ReverseKL())
    torch.testing.assert_close(gradient(case.hidden), 3 * d_hidden)
    torch.testing.assert_close(gradient(case.head), 3 * d_head)


@pytest.mark.parametrize(("hidden", "head"), [(True, False), (False, True), (False, False)])
def test_what_is_frozen_gets_no_gradient(hidden, head):
    case = Case(shared=True)
    case.hidden.requires_grad_(hidden)
    case.head.requires_grad_(head)
    loss, _ = fused_loss(ReverseKL(), *case.args())
    assert loss.requires_grad == (hidden or head)
    if loss.requires_grad:
        loss.backward()
    _, d_hidden, d_head = case.dense(ReverseKL())
    for x, trained, wanted in ((case.hidden, hidden, d_hidden), (case.head, head, d_head)):
        assert (x.grad is not None) == trained
        if trained:
            torch.testing.assert_close(x.grad, wanted)


def test_without_gradients_the_loss_is_the_same():
    case = Case()
    with torch.no_grad():
        loss, each = fused_loss(ReverseKL(), *case.args())
    again, same = fused_loss(ReverseKL(), *case.args())
    assert not loss.requires_grad
    assert torch.equal(loss, again)
    assert torch.equal(each, same)


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation gave."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        found = [x.numel() for x in tree_leaves(result) if isinstance(x, torch.Tensor)]
        self.numbers = max(self.numbers, *found, 0)
        return result


@pytest.mark.parametrize(
    "objective", [ReverseKL(), NegativeLogLikelihood(0.7), SampledKL(temperature=0.7), SUM], ids=repr
)
@pytest.mark.parametrize("shared", [False, True], ids=["two heads", "one head"])
def test_nothing_of_rows_by_vocabulary_is_made_or_kept(objective, shared, monkeypatch):
    monkeypatch.setattr(module, "chunk_rows", lambda *_heads: 6)
    monkeypatch.setattr(module, "block_rows", lambda _head: 2)
    case = Case(rows=300, v=500, shared=shared)
    kept: list[int] = []
    with (
        Largest() as largest,
        torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x),
    ):
        fused(objective, *case.args(), top=4)
    assert largest.numbers <= 12 * 500
    assert sorted(kept) == [300 * 8, 500 * 8]


def test_budgets_bound_a_chunk_and_a_block():
    small, large = torch.empty(1000, 2), torch.empty(150_000, 2, dtype=torch.bfloat16)
    assert module.chunk_rows(small, small) == 256
    assert module.chunk_rows(large, large) == module._CHUNK_BYTES // (2 * 150_000 * 2)
    assert module.chunk_rows(torch.empty(10**7, 1)) == 16
    assert module.block_rows(large) * 150_000 * 4 <= module._BLOCK_BYTES
    assert module.block_rows(torch.empty(10**7, 1)) == 1


@pytest.mark.parametrize(
    "objective", [ReverseKL(), NegativeLogLikelihood(), Divergence(0.3, temperature=0.7)], ids=repr
)
@pytest.mark.parametrize("shared", [False, True], ids=["two heads", "one head"])
def test_bfloat16(objective, shared):
    """Smooth objectives: elsewhere rounded logits decide what is in the support, and what is clipped."""
    case = Case(dtype=torch.bfloat16, shared=shared)
    loss, each = fused_loss(objective, *case.args())
    loss.backward()
    rows, d_hidden, d_head = case.dense(objective)
    assert loss.dtype == each.dtype == torch.float32
    assert gradient(case.hidden).dtype == gradient(case.head).dtype == torch.bfloat16
    assert off(each, rows) < 0.02
    assert off(gradient(case.hidden), d_hidden) < 0.03
    assert off(gradient(case.head), d_head) < 0.03


def test_bfloat16_sums_do_not_stall(monkeypatch):
    """2,000 chunks of the same row give 2,000 times its gradient; a sum kept in bfloat16 stops near 256."""
    monkeypatch.setattr(module, "chunk_rows", lambda *_heads: 1)
    one = Case(rows=1, dtype=torch.bfloat16)
    many = Case(rows=1, dtype=torch.bfloat16)
    many.hidden = one.hidden.detach().repeat(2000, 1).requires_grad_()
    many.theirs, many.said, many.weights = one.theirs.repeat(2000, 1), one.said.repeat(2000), torch.ones(2000)
    one.weights = torch.ones(1)
    for case in (one, many):
        fused_loss(ReverseKL(), *case.args())[0].backward()
    assert off(gradient(many.head), 2000 * gradient(one.head).double()) < 0.01


@pytest.mark.parametrize(("cap", "temperature"), [(math.inf, 1.0), (1.5, 1.0), (1.5, 0.7)])
def test_importance_weights_are_truncated_and_fixed(chunk, cap, temperature):
    case = Case()
    logits = (case.hidden @ case.head.T).detach() / temperature
    ours = torch.log_softmax(logits, -1).gather(1, case.said[:, None])[:, 0]
    drawn = ours + 0.5 * torch.randn(50, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    given = case.weights.clone()
    result = fused(ReverseKL(), *case.args(), sampler=Sampler(drawn, cap, temperature))
    result.loss.backward()
    ratio = (ours - drawn).exp().clamp(max=cap)
    assert ((ratio == cap).any()) == (cap < math.inf)
    rows, d_hidden, d_head = case.dense(ReverseKL(), case.weights * ratio)
    torch.testing.assert_close(result.losses, rows)
    torch.testing.assert_close(result.loss.detach(), (rows * case.weights * ratio).sum())
    torch.testing.assert_close(gradient(case.hidden), d_hidden)
    torch.testing.assert_close(gradient(case.head), d_head)
    assert torch.equal(case.weights, given)


def test_statistics(chunk):
    case = Case()
    result = fused(SUM, *case.args(), top=10)
    a = torch.log_softmax((case.hidden @ case.head.T).detach(), -1)
    b = torch.log_softmax(case.theirs @ case.their_head.T, -1)
    found = result.statistics
    assert found is not None
    torch.testing.assert_close(found.said, a.gather(1, case.said[:, None])[:, 0])
    torch.testing.assert_close(found.student_entropy, -(a.exp() * a).sum(-1))
    torch.testing.assert_close(found.teacher_entropy, -(b.exp() * b).sum(-1))
    torch.testing.assert_close(found.student_mass, a.exp().topk(10).values.sum(-1))
    torch.testing.assert_close(found.teacher_mass, b.exp().topk(10).values.sum(-1))
    assert fused(SUM, *case.args()).statistics is None


def test_statistics_without_a_teacher_are_not_numbers():
    case = Case()
    found = fused(NegativeLogLikelihood(), case.hidden, case.head, None, *case.args()[3:], top=200).statistics
    assert found is not None
    torch.testing.assert_close(found.student_mass, torch.ones(50, dtype=torch.float64))
    unknown = {field.name for field in fields(found) if getattr(found, field.name).isnan().any()}
    assert unknown == {"teacher_entropy", "teacher_mass"}


def test_what_is_not_a_number_is_returned():
    case = Case()
    with torch.no_grad():
        case.hidden[3, 0] = math.nan
    loss, each = fused_loss(ReverseKL(), *case.args())
    loss.backward()
    assert loss.isnan()
    assert each.isnan().nonzero().flatten().tolist() == [3]
    assert gradient(case.hidden).isnan().any(-1).nonzero().flatten().tolist() == [3]


def test_vocabularies_must_be_one():
    case = Case()
    with pytest.raises(ModelError, match="heads of 97 and 90 ids"):
        fused_loss(
            ReverseKL(), case.hidden, case.head, Heard.of(case.theirs, case.their_head[:90]), case.said, case.weights
        )


def test_a_teacher_is_wanted():
    case = Case()
    with pytest.raises(UsageError, match="wanted a teacher for ReverseKL"):
        fused_loss(ReverseKL(), case.hidden, case.head, None, case.said, case.weights)


def test_no_rows_cost_nothing():
    case = Case(rows=0)
    loss, each = fused_loss(ReverseKL(), *case.args())
    loss.backward()
    assert loss == 0
    assert each.shape == (0,)
    assert not gradient(case.head).any()
