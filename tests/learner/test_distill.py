"""The loop: a stopped run goes on to the bit, every method runs, anchors and validation do what they say."""

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from opcd_agents.errors import EngineError, UsageError
from opcd_agents.learner.contexts import Fixed, Nothing
from opcd_agents.learner.distill import Subject, _adapted, distill
from opcd_agents.learner.roles import cast_roles
from opcd_agents.learner.rows import anchors, example
from opcd_agents.pocket.houses import Goal, sample_house
from opcd_agents.policies.huggingface import HuggingFacePolicy
from opcd_agents.policies.loading import weights_hash
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
    return Subject(
        TASKS[:4], TASKS[4:], PlainHouse, Fixed(CONTEXT), [row for e in played for row in anchors(e, renderer)]
    )


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
    assert not (tmp_path / "none" / "metrics.jsonl").exists()  # nothing was played for it


class Broken(PlainHouse):
    """A game whose engine is gone."""

    def reset(self, *, seed=None, options=None):
        raise EngineError("no z-machine here")


class BrokenLater(PlainHouse):
    """A game that can be trained on, but not be validated on."""

    def reset(self, *, seed=None, options=None):
        if self.task in TASKS[4:]:
            raise EngineError("no z-machine there")
        return super().reset(seed=seed, options=options)


@pytest.mark.parametrize(("game", "lines"), [(Broken, 0), (BrokenLater, 4)])
def test_a_run_without_an_episode_fails_early(tokenizer, renderer, subject, tmp_path, game, lines):
    with pytest.raises(EngineError, match=r"every episode failed.*no z-machine") as raised:
        run(tokenizer, renderer, replace(subject, make_env=game), RECIPE, tmp_path / "run")
    assert raised.value.exit_code == 1
    assert len(RunFolder.open(tmp_path / "run").metrics()) == lines


@pytest.mark.parametrize("method", ["sft", "grpo"])
def test_who_reads_no_context_needs_none(tokenizer, renderer, subject, tmp_path, method):
    recipe = replace(
        RECIPE, method=method, updates=2, anchors=0, validate=0, **({"group": 2} if method == "grpo" else {})
    )
    bare = replace(subject, contexts=Nothing())
    _, _, lines = run(tokenizer, renderer, bare, recipe, tmp_path / method)
    assert len(lines) == 2
    for reads in (RECIPE, replace(recipe, nca=0.1)):
        with pytest.raises(UsageError, match="wanted a context to learn from"):
            run(tokenizer, renderer, bare, reads, tmp_path / f"{reads.method}-{reads.nca}")


def test_the_teacher_that_is_named_plays(tokenizer, renderer):
    policy = HuggingFacePolicy(tiny(len(tokenizer)), renderer, "tiny")
    other, off = tiny(len(tokenizer), seed=8), replace(RECIPE, method="off-policy")
    weights = {
        "frozen": policy.weights,
        "another": weights_hash(other),
        "ema": policy.weights,
        "live": policy.weights,
    }
    for name, expected in weights.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a live one
            roles = cast_roles(policy, replace(off, teacher=name), lambda name: other)
        assert roles.informed is not None
        assert roles.informed.weights == expected
        assert cast_roles(policy, RECIPE, lambda name: other).informed is None


def test_an_adapter_is_off_while_the_frozen_teacher_plays(tokenizer, renderer):
    policy = HuggingFacePolicy(tiny(len(tokenizer)), renderer, "tiny", longest=4)
    (expected,) = play(policy, TASKS[:1], PlainHouse, context=CONTEXT)
    roles = cast_roles(policy, replace(RECIPE, method="off-policy", lora_rank=2, longest=4, temperature=1.0), None)  # type: ignore[arg-type]
    with torch.no_grad():
        for name, parameter in policy.network.named_parameters():
            if "lora_" in name:
                parameter.add_(1.0)
    assert roles.informed is not None
    (episode,) = play(roles.informed, TASKS[:1], PlainHouse, context=CONTEXT)
    assert [turn.sampled_ids for turn in episode.turns] == [turn.sampled_ids for turn in expected.turns]


@pytest.mark.parametrize(("held", "end"), [(1e9, 3.0 * 1024), (0.0, 3.0 / 1024)])
def test_the_weight_of_anchors_has_bounds(held, end):
    recipe = replace(RECIPE, hold=3.0, hold_target=0.1)
    hold = recipe.hold
    for _ in range(50):
        hold = _adapted(hold, held * hold, recipe)
    assert hold == end


def test_an_adapter_stays_off_attention_where_feed_forward_is_trained(tokenizer, renderer):
    policy = HuggingFacePolicy(tiny(len(tokenizer)), renderer, "tiny")
    roles = cast_roles(policy, replace(RECIPE, weights="feed-forward", lora_rank=2, lora_alpha=1.5), None)  # type: ignore[arg-type]
    trained = [name for name, p in policy.network.named_parameters() if p.requires_grad]
    assert len(trained) == 2 * 3 * 2
    assert all(".mlp." in name and "lora_" in name for name in trained)
    layers: Any = policy.network.get_decoder().layers
    assert layers[0].mlp.up_proj.scaling["default"] == 0.75
    assert roles.trained().peft_config["default"].lora_alpha == 1.5
