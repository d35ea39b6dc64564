"""The loop: a stopped run goes on to the bit, every method runs, anchors and validation do what they say."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from opcd_agents.errors import UsageError
from opcd_agents.learner.contexts import Fixed
from opcd_agents.learner.distill import Subject, distill
from opcd_agents.learner.rows import anchor, example
from opcd_agents.pocket.houses import Goal, sample_house
from opcd_agents.policies.huggingface import HuggingFacePolicy
from opcd_agents.recipe import Recipe
from opcd_agents.rollout import play
from opcd_agents.runs import RunFolder
from opcd_agents.types import Split, Task

from .conftest import tiny

PLAN = sample_house(np.random.default_rng(3), held_out=True, rooms=3, containers=1, things=2)
CONTEXT = "Notes: coin crate. crate Hall. Hall top."


class PlainHouse:
    """A house without an engine, whose goal is met by any second reply, so that tiny models win too."""

    def __init__(self, task):
        self.turn = 0
        self.task = task

    def close(self):
        pass

    def reset(self, *, seed=None, options=None):
        return f"{Goal('coin')}\n{PLAN.start(PLAN.rooms[0]).describe()}", {}

    def step(self, action):
        self.turn += 1
        won = self.turn == 2 and self.task.seed % 2 == 0
        return "You wait.", float(won), won, self.turn >= 3 and not won, {"won": won, "action": action}


TASKS = [Task("plain", {}, i, Split.TRAIN, "w", f"f{i}", 2, 3) for i in range(6)]
RECIPE = Recipe(updates=13, episodes=4, lr=1e-3, longest=4, validate=5, validation_episodes=2, anchors=2, pull=0.01)


@pytest.fixture
def subject(tokenizer, renderer):
    policy = HuggingFacePolicy(tiny(len(tokenizer)), renderer, "tiny", longest=4)
    played = play(policy, TASKS[:3], PlainHouse, context=CONTEXT)
    return Subject(TASKS[:4], TASKS[4:], PlainHouse, Fixed(CONTEXT), [anchor(e) for e in played])


def run(tokenizer, renderer, subject, recipe, folder, *, resume=False, watch=lambda line: None):
    policy = HuggingFacePolicy(tiny(len(tokenizer)), renderer, "tiny")
    run_folder = RunFolder.open(folder) if resume else RunFolder.create(folder, {})
    result = distill(policy, subject, recipe, run_folder, seed=7, resume=resume, watch=watch)
    lines = [{k: v for k, v in line.items() if k != "seconds"} for line in run_folder.metrics()]
    return policy.network, result.data, lines


class Stop(Exception):
    pass


@pytest.mark.parametrize("at", [3, 10, 12])
def test_a_stopped_run_goes_on_to_the_bit(tokenizer, renderer, subject, tmp_path, at):
    def stop(line):
        if line["update"] == at:
            raise Stop

    straight, result, lines = run(tokenizer, renderer, subject, RECIPE, tmp_path / "straight")
    with pytest.raises(Stop):
        run(tokenizer, renderer, subject, RECIPE, tmp_path / "stopped", watch=stop)
    resumed, again, same = run(tokenizer, renderer, subject, RECIPE, tmp_path / "stopped", resume=True)
    assert again == result
    assert same == lines
    assert [line["update"] for line in lines] == list(range(1, 14))
    for a, b in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("method", ["opcd", "off-policy", "sft"])
def test_every_method_learns_something(tokenizer, renderer, subject, tmp_path, method):
    recipe = replace(RECIPE, method=method, updates=6, lr=3e-3, anchors=0, pull=0.0, validate=0, keep="last")
    network, _, lines = run(tokenizer, renderer, subject, recipe, tmp_path / method)
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < losses[0]
    assert any(
        not torch.equal(a, b) for a, b in zip(network.parameters(), tiny(len(tokenizer)).parameters(), strict=True)
    )


@pytest.mark.parametrize("method", ["opcd", "sft"])
def test_a_budget_of_sampled_ids_ends_the_run_and_counts_lost_episodes_too(
    tokenizer, renderer, subject, tmp_path, method
):
    recipe = replace(RECIPE, method=method, updates=50, sampled=100, validate=0, keep="last")
    _, result, lines = run(tokenizer, renderer, subject, recipe, tmp_path / method)
    totals = [line["sampled_in_all"] for line in lines]
    assert totals[-2] < 100 <= totals[-1] == result["sampled"]
    assert sum(line.get("sampled", 0) for line in lines) <= totals[-1]


def test_both_rows_come_from_one_episode_whoever_played(tokenizer, renderer):
    policy = HuggingFacePolicy(tiny(len(tokenizer)), renderer, "tiny", longest=4)
    (bare,) = play(policy, TASKS[:1], PlainHouse)
    (informed,) = play(policy, TASKS[:1], PlainHouse, context=CONTEXT)
    for episode in (bare, informed):
        pair = example(episode, renderer, CONTEXT)
        assert pair.student.said == tuple(i for t in episode.turns for i in t.sampled_ids)
        assert len(pair.teacher.ids) - len(pair.student.ids) == len(renderer.opening(CONTEXT, "")) - len(
            renderer.opening(None, "")
        )


def test_validation_tasks_are_wanted(tokenizer, renderer, subject, tmp_path):
    with pytest.raises(UsageError, match="validation tasks"):
        run(tokenizer, renderer, replace(subject, validation=[]), replace(RECIPE, updates=5), tmp_path / "none")
