"""A checkpoint belongs to one run, one model, one teacher; another is refused in a line, and an older whole one taken instead."""

import copy
import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from opcd_agents.errors import CheckpointError
from opcd_agents.learner import checkpoint
from opcd_agents.learner.contexts import Fixed
from opcd_agents.learner.distill import Subject, distill
from opcd_agents.learner.learner import Learner, Settings
from opcd_agents.learner.objectives import ReverseKL
from opcd_agents.learner.teachers import Following, Frozen
from opcd_agents.policies.huggingface import HuggingFacePolicy
from opcd_agents.recipe import Recipe
from opcd_agents.runs import RunFolder
from opcd_agents.types import Example

from .conftest import tiny
from .test_distill import CONTEXT, TASKS, PlainHouse
from .test_learner import TURNS, row

SMALL = Recipe(updates=2, episodes=4, lr=1e-3, longest=4, validate=0, keep="last", temperature=1.0)


def learner_of(network, teacher=None):
    return Learner(network, teacher or Frozen(copy.deepcopy(network)), ReverseKL(), Settings(lr=1e-3))


@pytest.fixture
def saved(network, tmp_path):
    """A checkpoint after one update, and the learner before it."""
    before = copy.deepcopy(network)
    learner = learner_of(network)
    learner.update([Example(row([], *turns), row([7, 8, 9], *turns)) for turns in TURNS])
    checkpoint.save(learner, dict(network.named_parameters()), {"update": 1}, tmp_path / "checkpoint", "mine")
    return tmp_path / "checkpoint", learner_of(before)


def rewritten(folder, name, change):
    """Change the tensors of one file, and have the manifest agree."""
    tensors = load_file(folder / name)
    save_file(change(tensors), folder / name)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest[name] = checkpoint.hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_one_of_another_run_is_refused(saved):
    folder, learner = saved
    with pytest.raises(CheckpointError, match="belongs to another run"):
        checkpoint.restore(learner, folder, "yours")
    checkpoint.restore(learner, folder, "mine")
    assert learner.updates == 1


def test_one_of_another_teachers_weights_is_refused(saved, tokenizer):
    folder, learner = saved
    other = learner_of(learner.student, Frozen(tiny(len(tokenizer), seed=9)))
    with pytest.raises(CheckpointError, match="another teacher: its weights are not those of now"):
        checkpoint.restore(other, folder, "mine")


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("model.safetensors", lambda t: {n: one[:1].clone() for n, one in t.items()}, "another model"),
        ("model.safetensors", lambda t: {f"{n}.x": one for n, one in t.items()}, "another model"),
        ("best.safetensors", lambda t: {n: one[:1].clone() for n, one in t.items()}, "another model"),
        ("best.safetensors", lambda t: {f"{n}.x": one for n, one in t.items()}, "another model"),
        ("optimizer.safetensors", lambda t: {f"x{n}": one for n, one in t.items()}, "another optimiser"),
        ("optimizer.safetensors", lambda t: {n: torch.zeros(3) for n in t}, "another optimiser"),
    ],
)
def test_other_names_and_shapes_are_a_line_and_an_older_one_is_taken(saved, name, change, says):
    folder, learner = saved
    shutil.copytree(folder, folder.with_name("checkpoint.old"))
    rewritten(folder, name, change)
    before = [p.detach().clone() for p in learner.student.parameters()]
    with pytest.raises(CheckpointError, match=says):
        checkpoint._load(learner, checkpoint._verified(folder, "mine", learner.teacher.identity))
    assert learner.updates == 0
    assert all(torch.equal(a, b) for a, b in zip(before, learner.student.parameters(), strict=True))
    checkpoint.restore(learner, folder, "mine")
    assert learner.updates == 1


def test_a_follower_of_another_shape_is_a_line(network, tmp_path):
    learner = learner_of(network, Following(network, 0.1))
    checkpoint.save(learner, {}, {}, tmp_path / "c")
    rewritten(tmp_path / "c", "teacher.safetensors", lambda t: {n: one[:1].clone() for n, one in t.items()})
    with pytest.raises(CheckpointError, match="another teacher"):
        checkpoint.restore(learner, tmp_path / "c")


def begun(tokenizer, renderer, run, *, resume, seed=5):
    policy = HuggingFacePolicy(tiny(len(tokenizer)), renderer, "tiny")
    subject = Subject(TASKS[:4], [], PlainHouse, Fixed(CONTEXT))
    recipe = replace(SMALL, teacher="another")
    return distill(policy, subject, recipe, run, resume=resume, load=lambda name: tiny(len(tokenizer), seed=seed))


def test_a_run_takes_neither_anothers_checkpoint_nor_another_teacher(tokenizer, renderer, tmp_path):
    runs = [RunFolder.create(tmp_path / name, {"seed": name}) for name in "ab"]
    for run in runs:
        begun(tokenizer, renderer, run, resume=False)
    with pytest.raises(CheckpointError, match="another teacher"):
        begun(tokenizer, renderer, runs[1], resume=True, seed=6)
    begun(tokenizer, renderer, runs[1], resume=True)
    shutil.rmtree(runs[1].checkpoint)
    shutil.copytree(runs[0].checkpoint, runs[1].checkpoint)
    with pytest.raises(CheckpointError, match="belongs to another run"):
        begun(tokenizer, renderer, runs[1], resume=True)


def test_a_state_of_another_version_is_a_line(tokenizer, renderer, tmp_path):
    run = RunFolder.create(tmp_path / "run", {})
    policy = HuggingFacePolicy(tiny(len(tokenizer)), renderer, "tiny")
    checkpoint.save(learner_of(policy.network), {}, {"update": 1, "odd": 2}, run.checkpoint, run.identity)
    with pytest.raises(CheckpointError, match="another version"):
        distill(policy, Subject(TASKS[:4], [], PlainHouse, Fixed(CONTEXT)), SMALL, run, resume=True)


def test_what_an_older_one_had_to_do_for_is_told(saved):
    folder, learner = saved
    shutil.copytree(folder, folder.with_name("checkpoint.old"))
    assert checkpoint.restore(learner, folder, "mine")[2] == ""
    (folder / "manifest.json").write_text("{")
    assert str(folder) in checkpoint.restore(learner, folder, "mine")[2]


def test_one_that_a_kill_left_unfinished_is_no_fault(saved):
    folder, learner = saved
    unfinished = folder.with_name("checkpoint.new")
    shutil.copytree(folder, unfinished)
    (unfinished / "manifest.json").unlink()
    assert checkpoint.restore(learner, folder, "mine")[2] == ""
