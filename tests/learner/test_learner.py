"""One update is what the formula says; the loss falls; the teacher stays; a checkpoint resumes to the bit."""

import copy
import errno
import os
from itertools import count

import pytest
import torch

from opcd_agents.errors import CheckpointError
from opcd_agents.learner import checkpoint
from opcd_agents.learner.forward import Passes, PrefixStates, student_states
from opcd_agents.learner.learner import Learner, Settings
from opcd_agents.learner.objectives import ReverseKL
from opcd_agents.learner.teachers import Following, Frozen
from opcd_agents.runs import write_atomic
from opcd_agents.types import Example, Tokens


def row(prompt: list[int], *turns: tuple[list[int], list[int]]) -> Tokens:
    ids, flags = list(prompt), [False] * len(prompt)
    for heard, said in turns:
        ids += [*heard, *said]
        flags += [False] * len(heard) + [True] * len(said)
    return Tokens(tuple(ids), tuple(flags))


CONTEXT = [2, 40, 41, 42, 43, 44, 1]
TURNS = [
    [([3, 9, 10], [11, 12, 1]), ([3, 13], [14, 1])],
    [([3, 20, 21, 22, 23], [24, 1])],
    [([3, 9], [30, 31, 32, 33, 1]), ([3, 13, 15, 16], [17, 18, 1]), ([3, 4], [5, 1])],
]


@pytest.fixture
def examples():
    return [Example(row([], *turns), row(CONTEXT, *turns)) for turns in TURNS]


def naive(student, teacher, examples, average):
    """Dense, one row at a time, float64."""
    means, every = [], []
    for e in examples:
        logits = student(torch.tensor([e.student.ids])).logits[0].double()
        with torch.no_grad():
            theirs = teacher(torch.tensor([e.teacher.ids])).logits[0].double()
        at = torch.tensor([i - 1 for i, s in enumerate(e.student.sampled) if s])
        there = torch.tensor([i - 1 for i, s in enumerate(e.teacher.sampled) if s])
        p, q = torch.log_softmax(logits[at], -1), torch.log_softmax(theirs[there], -1)
        each = (p.exp() * (p - q)).sum(-1)
        means.append(each.mean())
        every.append(each)
    return torch.cat(every).mean() if average == "token" else torch.stack(means).mean()


@pytest.mark.parametrize(("scale", "left"), [(1.0, 0.75), (0.5, 0.875), (0.0, 1.0)])
def test_each_update_goes_a_part_of_the_way_back(network, examples, scale, left):
    began = copy.deepcopy(network)
    learner = Learner(network, Frozen(copy.deepcopy(network)), ReverseKL(), Settings(lr=0.0, pull=0.25))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    learner.update(examples, scale=scale)
    for now, then in zip(network.parameters(), began.parameters(), strict=True):
        torch.testing.assert_close(now - then, torch.full_like(now, left))


@pytest.mark.parametrize("average", ["token", "sequence"])
@pytest.mark.parametrize("budget", [8192, 20])
def test_an_update_follows_the_dense_gradient(network, examples, average, budget):
    teacher = copy.deepcopy(network)
    reference = copy.deepcopy(network)
    loss = naive(reference, teacher, examples, average)
    loss.backward()
    settings = Settings(lr=0.0, average=average, clip=1e9, row_tokens=budget)
    learner = Learner(network, Frozen(teacher), ReverseKL(), settings)
    metrics = learner.update(examples)
    assert metrics.loss == pytest.approx(loss.item(), rel=1e-4)
    assert metrics.sampled == sum(len(e.student.said) for e in examples)
    for (name, mine), theirs in zip(network.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-4, rtol=1e-3, msg=name)


def test_loss_falls_and_the_teacher_stays(network, examples):
    teacher = copy.deepcopy(network)
    before = copy.deepcopy(teacher.state_dict())
    learner = Learner(network, Frozen(teacher), ReverseKL(), Settings(lr=3e-3))
    losses = [learner.update(examples).loss for _ in range(30)]
    assert losses[-1] < 0.3 * losses[0]
    assert all(torch.equal(before[k], v) for k, v in teacher.state_dict().items())


def test_anchors_hold(network, examples):
    """An anchor row costs nothing at first, and pulls back once the weights have moved."""
    held = [Example(e.teacher, e.teacher) for e in examples]
    learner = Learner(network, Frozen(copy.deepcopy(network)), ReverseKL(), Settings(lr=3e-3))
    assert learner.update(examples, held).anchor == pytest.approx(0, abs=1e-5)
    assert learner.update(examples, held).anchor > 1e-5


def test_teacher_prefix_is_shared_and_exact(network, examples):
    states = PrefixStates(copy.deepcopy(network))
    rows = [e.teacher for e in examples]
    for _ in range(2):  # the second time from the kept prefix
        torch.testing.assert_close(states(rows, Passes()), student_states(network, rows).detach(), atol=1e-4, rtol=1e-4)


def test_a_checkpoint_resumes_to_the_bit(network, examples, tmp_path):
    initial = copy.deepcopy(network)
    straight = Learner(network, Frozen(initial), ReverseKL(), Settings(lr=1e-3))
    for _ in range(2):
        straight.update(examples)
    weights = {n: p.detach().clone() for n, p in network.named_parameters()}
    checkpoint.save(straight, weights, {"update": 2}, tmp_path / "checkpoint")
    straight.update(examples)
    resumed = Learner(copy.deepcopy(initial).requires_grad_(), Frozen(initial), ReverseKL(), Settings(lr=1e-3))
    best, state, _ = checkpoint.restore(resumed, tmp_path / "checkpoint")
    assert state == {"update": 2}
    assert all(torch.equal(best[n], w) for n, w in weights.items())
    resumed.update(examples)
    for a, b in zip(network.parameters(), resumed.student.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    "file",
    [
        "model.safetensors",
        "best.safetensors",
        "optimizer.safetensors",
        "teacher.safetensors",
        "state.json",
        "manifest.json",
    ],
)
@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "flipped", "another run's"])
def test_a_damaged_checkpoint_is_refused(network, examples, tmp_path, file, damage):
    learner = Learner(network, Following(network, 0.5), ReverseKL(), Settings(lr=1e-3))
    learner.update(examples)
    folder = tmp_path / "checkpoint"
    checkpoint.save(learner, dict(network.named_parameters()), {"update": 1}, folder)
    learner.update(examples)
    checkpoint.save(learner, dict(network.named_parameters()), {"update": 2}, tmp_path / "another")
    path = folder / file
    data = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    else:
        half = len(data) // 2
        data[half] ^= 1
        other = (tmp_path / "another" / file).read_bytes()
        path.write_bytes(
            {"another run's": other, "empty": b"", "truncated": bytes(data[:half]), "flipped": bytes(data)}[damage]
        )
    with pytest.raises(CheckpointError):
        checkpoint.restore(learner, folder)


@pytest.mark.parametrize("fails", range(6))
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_a_disk_that_fails_at_any_write_leaves_the_last_checkpoint(
    network, examples, tmp_path, monkeypatch, fails, error
):
    learner = Learner(network, Following(network, 0.5), ReverseKL(), Settings(lr=1e-3))
    folder = tmp_path / "checkpoint"
    checkpoint.save(learner, {}, {"update": 0}, folder)
    kept = {name: p.detach().clone() for name, p in network.named_parameters()}
    learner.update(examples)
    calls = count()

    def failing(path, data):
        if next(calls) == fails:
            raise OSError(error, os.strerror(error))
        write_atomic(path, data)

    monkeypatch.setattr(checkpoint, "write_atomic", failing)
    with pytest.raises(CheckpointError, match="cannot write the checkpoint"):
        checkpoint.save(learner, {}, {"update": 1}, folder)
    _, state, _ = checkpoint.restore(learner, folder)
    assert (state, learner.updates) == ({"update": 0}, 0)
    assert all(torch.equal(kept[name], p) for name, p in network.named_parameters())
