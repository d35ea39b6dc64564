"""What else an update does: masks, weights, importance, anchoring, lower precision, adapters, and stopping in time."""

import copy
import math
from dataclasses import replace

import pytest
import torch

from opcd_agents.errors import AlignmentError, LearnerError
from opcd_agents.learner.learner import Learner, Settings
from opcd_agents.learner.objectives import NegativeLogLikelihood, ReverseKL
from opcd_agents.learner.teachers import Frozen
from opcd_agents.types import Example

from .test_learner import CONTEXT, TURNS, row


@pytest.fixture
def examples():
    return [Example(row([], *turns), row(CONTEXT, *turns)) for turns in TURNS]


def gradients(network, examples, objective=None, **settings):
    """Metrics and gradients of one update that changes nothing."""
    mine = copy.deepcopy(network)
    teacher = Frozen(copy.deepcopy(network))
    learner = Learner(mine, teacher, objective or ReverseKL(), Settings(lr=0.0, clip=1e9, **settings))
    metrics = learner.update(examples)
    return metrics, [p.grad.clone() for p in mine.parameters()]


def close(one, other, tolerance=1e-5):
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, atol=tolerance, rtol=1e-3)


def test_only_what_a_mask_leaves_is_learnt(network, examples):
    """A mask on the last reply of a row is the row of that reply alone, what came before being its prompt."""
    masked, alone = [], []
    for example, turns in zip(examples, TURNS, strict=True):
        last = len(turns[-1][1])
        flags = (False,) * (len(example.student.said) - last) + (True,) * last
        masked.append(replace(example, learnt=flags))
        quiet = [(heard + said, []) for heard, said in turns[:-1]]
        alone.append(Example(row([], *quiet, turns[-1]), row(CONTEXT, *quiet, turns[-1])))
    mine, theirs = gradients(network, masked), gradients(network, alone)
    assert mine[0].loss == pytest.approx(theirs[0].loss, rel=1e-5)
    assert mine[0].sampled == theirs[0].sampled
    close(mine[1], theirs[1])


@pytest.mark.parametrize("flags", [(True,), (False,) * 5])
def test_masks_that_cannot_be_are_refused(examples, flags):
    with pytest.raises(AlignmentError):
        replace(examples[0], learnt=flags)


def test_weights_are_advantages_of_either_sign(network, examples):
    weights = [2.0, -1.0, 0.5]
    weighted = [replace(e, weight=w) for e, w in zip(examples, weights, strict=True)]
    _, mine = gradients(network, weighted, NegativeLogLikelihood())
    total = sum(e.counts for e in examples)
    parts = [gradients(network, [e], NegativeLogLikelihood())[1] for e in examples]
    factors = [w * e.counts / total for w, e in zip(weights, examples, strict=True)]
    expected = [sum(f * part[i] for f, part in zip(factors, parts, strict=True)) for i in range(len(mine))]
    close(mine, expected)


@pytest.mark.parametrize("average", ["token", "sequence"])
def test_a_row_of_no_weight_counts_and_costs_nothing(network, examples, average):
    """As episodes of a group without advantage do: the mean is over all that was played."""
    weights = [2.0, 0.0, -1.0]
    weighted = [replace(e, weight=w) for e, w in zip(examples, weights, strict=True)]
    metrics, mine = gradients(network, weighted, NegativeLogLikelihood(), average=average)
    ids = [e.counts for e in examples]
    shares = [n / sum(ids) for n in ids] if average == "token" else [1 / 3] * 3
    parts = [gradients(network, [e], NegativeLogLikelihood())[1] for e in examples]
    factors = [w * share for w, share in zip(weights, shares, strict=True)]
    close(mine, [sum(f * part[i] for f, part in zip(factors, parts, strict=True)) for i in range(len(mine))])
    assert metrics.encoded == len(examples[0].student.ids) + len(examples[2].student.ids)
    assert metrics.sampled == ids[0] + ids[2]


def by_turn(number, turns, turn_prompt):
    """An episode as a row a turn; what came before is the prompt, as it was in the one row."""
    for n in range(len(turns)):
        before = [(heard + said, []) for heard, said in turns[:n]]
        rows = [row(prompt, *before, turns[n]) for prompt in ([], turn_prompt)]
        yield Example(rows[0], rows[1], episode=number, turn=n)


@pytest.mark.parametrize("average", ["token", "sequence"])
@pytest.mark.parametrize("objective", [ReverseKL(), NegativeLogLikelihood()], ids=repr)
def test_an_episode_weighs_the_same_as_one_row_or_several(network, examples, average, objective):
    parted = [one for n, turns in enumerate(TURNS) for one in by_turn(n, turns, CONTEXT)]
    whole, mine = gradients(network, examples, objective, average=average, top=4)
    turns, theirs = gradients(network, parted, objective, average=average, top=4)
    close(mine, theirs)
    assert (turns.loss, turns.first_token) == pytest.approx((whole.loss, whole.first_token), rel=1e-4)
    assert len(whole.diagnostics["kl_by_turn"]) == 3
    for name, one in whole.diagnostics.items():
        assert turns.diagnostics[name] == pytest.approx(one, rel=1e-4), name


def test_importance_weights_are_one_where_sampler_and_trainer_agree(network, examples):
    metrics, plain = gradients(network, examples, top=8)
    with torch.no_grad():
        drawn = [torch.log_softmax(network(torch.tensor([e.student.ids])).logits[0], -1) for e in examples]
    told = [
        replace(e, drawn=tuple(float(logs[i - 1, e.student.ids[i]]) for i, s in enumerate(e.student.sampled) if s))
        for e, logs in zip(examples, drawn, strict=True)
    ]
    close(gradients(network, told, importance=2.0)[1], plain)
    surprised = [replace(e, drawn=tuple(d - 9 for d in e.drawn)) for e in told]  # the sampler found all of it unlikely
    doubled = gradients(network, surprised, importance=2.0)[1]
    close(doubled, [2 * g for g in plain])
    mean = sum(d for e in told for d in e.drawn) / sum(e.counts for e in told)
    assert metrics.diagnostics["said"] == pytest.approx(mean, rel=1e-4)


def test_rereading_the_context_changes_nothing_at_first_only_where_it_does_not_matter(network, examples):
    same = [Example(e.student, e.student) for e in examples]
    assert gradients(network, same, nca=1.0)[0].reread == pytest.approx(0, abs=1e-6)
    assert gradients(network, examples, nca=1.0)[0].reread > 1e-4
    half, whole = (gradients(network, examples, nca=w)[0].reread for w in (0.5, 1.0))
    assert half == pytest.approx(whole / 2, rel=1e-5)


def test_anchoring_brings_the_readings_together(network, examples):
    learner = Learner(network, Frozen(copy.deepcopy(network)), ReverseKL(), Settings(lr=3e-3, nca=1.0))
    read = [learner.update(examples).reread for _ in range(30)]
    assert read[-1] < 0.5 * read[0]


def test_activations_computed_again_change_nothing(network, examples):
    _, plain = gradients(network, examples)
    passes: list[bool] = []
    hook = network.get_submodule("model.layers.0.mlp").register_forward_pre_hook(
        lambda *_: passes.append(torch.is_grad_enabled())
    )
    _, again = gradients(network, examples, checkpointing=True)
    hook.remove()
    assert sum(passes) == 2  # forward, and again on the way back
    close(plain, again, tolerance=1e-6)  # not to the bit: checkpointing has the last layer compute all states
    assert not any(module.training for module in network.modules())


def test_bfloat16_is_near_float32_and_trains_float32_weights(network, examples):
    metrics, plain = gradients(network, examples)
    low, rough = gradients(network, examples, dtype=torch.bfloat16)
    assert low.loss == pytest.approx(metrics.loss, rel=0.1)
    cosine = torch.nn.functional.cosine_similarity(
        *(torch.cat([g.flatten() for g in x]) for x in (plain, rough)), dim=0
    )
    assert cosine > 0.95
    assert {g.dtype for g in rough} == {torch.float32}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_stops_before_the_step(network, examples, bad):
    learner = Learner(network, Frozen(copy.deepcopy(network)), ReverseKL(), Settings(lr=1e-3))
    with torch.no_grad():
        next(iter(network.model.layers[1].parameters()))[0, 0] = bad
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(LearnerError, match=r"update 1: .*nothing was changed"):
        learner.update(examples)
    after = network.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before if torch.isfinite(before[k]).all())
    assert learner.updates == 0


def test_diagnostics_are_of_what_is_learnt(network, examples):
    """What a mask leaves out is in no mean: of the third row only the last reply, of the first all but its first id."""
    first, _, third = examples
    masked = [replace(first, learnt=(False,) + (True,) * 4), replace(third, learnt=(False,) * 8 + (True,) * 2)]
    found, _ = gradients(network, masked, top=8)
    every, _ = gradients(network, [first], top=8)
    assert found.diagnostics["kl_by_turn"][2] == pytest.approx(
        gradients(network, [replace(third, learnt=masked[1].learnt)])[0].loss, rel=1e-4
    )
    assert found.diagnostics["kl_by_turn"][1] == pytest.approx(every.diagnostics["kl_by_turn"][1], rel=1e-4)
    assert found.diagnostics["reply"] == pytest.approx((2 + 2 + 2) / 3)
    last, kinds = replace(third, learnt=(False,) * 9 + (True,)), {"first": None, "inner": None}
    alone = gradients(network, [last], top=8)[0]
    assert alone.diagnostics["kl_by_class"] == kinds | {"last": pytest.approx(alone.loss, rel=1e-4)}
    assert alone.first_token == pytest.approx(alone.loss, rel=1e-4)


def test_diagnostics_tell_turns_and_classes(network, examples):
    found = gradients(network, examples, top=8)[0].diagnostics
    assert len(found["kl_by_turn"]) == 3
    assert set(found["kl_by_class"]) == {"first", "last", "inner"}
    ids = [len(said) for turns in TURNS for _, said in turns]
    assert found["reply"] == pytest.approx(sum(ids) / len(ids))
    turns = [sum(len(turns[n][1]) for turns in TURNS if n < len(turns)) for n in range(3)]
    loss = gradients(network, examples)[0].loss
    assert sum(k * n for k, n in zip(found["kl_by_turn"], turns, strict=True)) / sum(turns) == pytest.approx(
        loss, rel=1e-4
    )
    assert 0 < found["student_mass"] <= 1
    assert found["student_entropy"] > 0
    assert gradients(network, examples)[0].diagnostics == {}
    assert "teacher_entropy" not in gradients(network, examples, NegativeLogLikelihood(), top=8)[0].diagnostics
