"""Teachers: what each says, when it changes, and that the same teacher with the same context teaches nothing."""

import copy

import pytest
import torch

from opcd_agents.errors import CheckpointError, UsageError
from opcd_agents.learner import checkpoint
from opcd_agents.learner.ensemble import Ensemble
from opcd_agents.learner.forward import Passes, student_states
from opcd_agents.learner.learner import Learner, Settings
from opcd_agents.learner.objectives import Divergence, ForwardKL, ReverseKL, SampledKL
from opcd_agents.learner.teachers import Following, Frozen, Live, TrustRegion
from opcd_agents.policies.loading import head_of
from opcd_agents.types import Example

from .conftest import tiny
from .test_learner import CONTEXT, TURNS, row

ROWS = [row(CONTEXT, *turns) for turns in TURNS]
EVERY = slice(0, sum(len(r.said) for r in ROWS))


@pytest.fixture
def examples():
    return [Example(row([], *turns), row(CONTEXT, *turns)) for turns in TURNS]


def logprobs(network):
    with torch.no_grad():
        return torch.log_softmax(student_states(network, ROWS) @ head_of(network).weight.T, -1)


def said(teacher):
    return torch.log_softmax(teacher(ROWS).logits(EVERY), -1)


def close(a, b):
    torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


@pytest.fixture
def other(tokenizer):
    return tiny(len(tokenizer), seed=1)


def shifted(network, by):
    moved = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter.mul_(1 + by)
    return moved


def move(network):
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))


@pytest.mark.parametrize(
    "objective", [ReverseKL(), ForwardKL(), Divergence(0.5), Divergence(support="union", k=4), SampledKL()]
)
def test_the_same_context_and_weights_teach_nothing(network, objective):
    if isinstance(objective, SampledKL):
        network.double()  # its gradient is of the first order in what rounding leaves between two passes
    learner = Learner(network, Frozen(copy.deepcopy(network)), objective, Settings(lr=1.0))
    metrics = learner.update([Example(r, r) for r in ROWS])
    assert abs(metrics.loss) < 1e-6
    assert metrics.grad_norm < 1e-6


def test_a_frozen_teacher_keeps_its_word(network):
    began = logprobs(network)
    teacher = Frozen(copy.deepcopy(network))
    for update in range(3):
        move(network)
        teacher.step(update)
        close(said(teacher), began)


class Cells:
    """The most that one pass of a model held, rows times what each can look at, and the most rows."""

    def __init__(self, network):
        self.most, self.rows = 0, 0
        network.get_decoder().register_forward_pre_hook(self.see, with_kwargs=True)

    def see(self, _module, _args, named):
        rows, cells = named["attention_mask"].shape[0], named["attention_mask"].shape[-1]
        self.rows = max(self.rows, rows)
        self.most = max(self.most, rows * cells)


@pytest.mark.parametrize(("budget", "rows"), [(8192, 3), (45, 2), (10, 1)])
def test_its_passes_hold_to_a_budget_too(network, examples, budget, rows):
    """The context is in the teacher's rows alone, which the student's length says nothing of."""
    whole = Learner(network, Frozen(copy.deepcopy(network)), ReverseKL(), Settings(lr=0.0)).update(examples)
    teacher = Frozen(copy.deepcopy(network))
    cells = Cells(teacher.network)
    metrics = Learner(network, teacher, ReverseKL(), Settings(lr=0.0, row_tokens=budget)).update(examples)
    assert cells.rows == rows
    assert rows == 1 or cells.most <= budget
    assert metrics.loss == pytest.approx(whole.loss, rel=1e-4)
    close(torch.log_softmax(teacher(ROWS, Passes(budget)).logits(EVERY), -1), logprobs(network))


def test_it_computes_in_the_type_that_the_student_does(network):
    """As where an adapter is trained in bfloat16: float32 weights, bfloat16 passes and logits, on both sides."""
    low = torch.bfloat16
    alike, apart = (Frozen(copy.deepcopy(network))(ROWS, passes) for passes in (Passes(dtype=low), Passes()))
    assert {t.dtype for part in alike.parts for t in (part.hidden, part.head)} == {low}
    with torch.no_grad():
        mine = (student_states(network, ROWS, low) @ head_of(network).weight.T.to(low)).float()
    near, far = (
        (torch.log_softmax(said.logits(EVERY), -1) - torch.log_softmax(mine, -1)).abs().mean()
        for said in (alike, apart)
    )
    assert near < 0.7 * far


def test_a_learner_takes_its_teacher_along(network, examples):
    seen = []
    model = copy.deepcopy(network)
    model.model.layers[0].self_attn.q_proj.register_forward_hook(lambda _m, _a, out: seen.append(out.dtype))
    teacher = Frozen(model)
    Learner(network, teacher, ReverseKL(), Settings(lr=0.0, dtype=torch.bfloat16)).update(examples)
    assert set(seen) == {torch.bfloat16}


def test_a_context_is_computed_once_however_many_passes(network):
    model = copy.deepcopy(network)
    seen = []
    model.get_decoder().register_forward_pre_hook(
        lambda _m, _a, named: seen.append(named["input_ids"].numel()), with_kwargs=True
    )
    Frozen(model)(ROWS, Passes(10))
    shared = len(CONTEXT) + 1  # each row's first turn begins alike
    assert seen == [shared, *(len(r.ids) - shared for r in ROWS)]


def test_a_live_teacher_says_what_the_student_says(network):
    teacher = Live(network)
    close(said(teacher), logprobs(network))
    move(network)
    teacher.step(1)
    close(said(teacher), logprobs(network))


def test_an_average_follows_by_its_rate(network):
    began = copy.deepcopy(network)
    teacher = Following(network, 0.25)
    move(network)
    teacher.step(1)
    expected = copy.deepcopy(began)
    with torch.no_grad():
        for mine, theirs in zip(expected.parameters(), network.parameters(), strict=True):
            mine.copy_(0.75 * mine + 0.25 * theirs)
    close(said(teacher), logprobs(expected))


def test_a_synced_teacher_jumps_every_so_many_updates(network):
    began = logprobs(network)
    teacher = Following(network, 1.0, every=3)
    move(network)
    for update in (1, 2):
        teacher.step(update)
        close(said(teacher), began)
    teacher.step(3)
    close(said(teacher), logprobs(network))


def test_a_trust_region_lies_between_in_logits(network, other):
    teacher = TrustRegion(copy.deepcopy(network), other, 0.3)
    close(said(teacher), torch.log_softmax(0.7 * logprobs(network) + 0.3 * logprobs(other), -1))


def test_an_ensemble_averages_probabilities(network, other):
    teacher = Ensemble([(Frozen(copy.deepcopy(network)), 1.0), (Frozen(copy.deepcopy(other)), 3.0)])
    close(said(teacher).exp(), 0.25 * logprobs(network).exp() + 0.75 * logprobs(other).exp())


@pytest.mark.parametrize(("rate", "every"), [(0.0, 1), (1.1, 1), (0.5, 0)])
def test_odd_followers_are_refused(network, rate, every):
    with pytest.raises(UsageError, match="wanted a rate"):
        Following(network, rate, every)


def test_weights_of_an_ensemble_are_above_nought(network):
    with pytest.raises(UsageError, match="weights above 0"):
        Ensemble([(Frozen(network), 0.0)])


def test_mixtures_learn_by_the_dense_gradient(network, other, examples):
    """The fused path with several heads against plain autograd."""
    first = copy.deepcopy(network)
    teacher = Ensemble([(Frozen(copy.deepcopy(network)), 0.5), (Frozen(copy.deepcopy(other)), 0.5)])
    learner = Learner(network, teacher, ReverseKL(), Settings(lr=0.0, clip=1e9))
    q = said(teacher)
    metrics = learner.update(examples)
    p = torch.log_softmax(student_states(first, [e.student for e in examples]) @ head_of(first).weight.T, -1)
    loss = (p.exp() * (p - q)).sum(-1).mean()
    loss.backward()
    assert metrics.loss == pytest.approx(loss.item(), rel=1e-4)
    for mine, theirs in zip(network.parameters(), first.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    "make", [lambda n: Following(n, 0.1), lambda n: Ensemble([(Following(n, 0.1), 1), (Frozen(copy.deepcopy(n)), 1)])]
)
def test_a_checkpoint_keeps_who_follows(network, examples, tmp_path, make):
    fresh = copy.deepcopy(network)
    straight = Learner(network, make(network), ReverseKL(), Settings(lr=1e-3))
    straight.update(examples)
    checkpoint.save(straight, {}, {"update": 1}, tmp_path / "c")
    resumed = Learner(fresh, make(fresh), ReverseKL(), Settings(lr=1e-3))
    checkpoint.restore(resumed, tmp_path / "c")
    assert resumed.updates == 1
    for one in (straight, resumed):
        one.update(examples)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), fresh.parameters(), strict=True))
    another = Learner(copy.deepcopy(fresh), Frozen(copy.deepcopy(fresh)), ReverseKL(), Settings(lr=1e-3))
    with pytest.raises(CheckpointError, match="another teacher"):
        checkpoint.restore(another, tmp_path / "c")


@pytest.mark.parametrize("by", [-20, 20])
def test_heads_that_are_padded_differently_are_compared_over_the_ids_that_both_know(tokenizer, examples, by):
    """Against plain autograd over those ids."""
    student, known = tiny(len(tokenizer) + 30), len(tokenizer) + 30 + min(by, 0)
    other = tiny(len(tokenizer) + 30 + by, seed=3)
    first = copy.deepcopy(student)
    teacher = Frozen(other, len(tokenizer) + 30)
    assert teacher.vocabulary == known
    metrics = Learner(student, teacher, ReverseKL(), Settings(lr=0.0, clip=1e9)).update(examples)
    q = torch.log_softmax(logits_of(other, [e.teacher for e in examples])[:, :known], -1).detach()
    p = torch.log_softmax(logits_of(first, [e.student for e in examples])[:, :known], -1)
    loss = (p.exp() * (p - q)).sum(-1).mean()
    loss.backward()
    assert metrics.loss == pytest.approx(loss.item(), rel=1e-4)
    for mine, theirs in zip(student.parameters(), first.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-4, rtol=1e-3)


def logits_of(network, rows):
    return student_states(network, rows) @ head_of(network).weight.T


def test_an_ensemble_is_over_the_ids_that_all_know(tokenizer):
    models = [tiny(len(tokenizer) + more, seed=more) for more in (4, 0, 9)]
    teacher = Ensemble([(Frozen(one), 1.0) for one in models])
    assert teacher.vocabulary == len(tokenizer) == said(teacher).shape[1]


def test_mixtures_are_no_members(network):
    mixture = TrustRegion(copy.deepcopy(network), network, 0.1)
    with pytest.raises(UsageError, match="single models"):
        Ensemble([(Frozen(network), 1.0), (mixture, 1.0)])
