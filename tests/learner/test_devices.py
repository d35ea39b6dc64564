"""Every tensor is made where the model is: with another device as the default, whatever forgets to say so meets the wrong one.

The default is `meta`, whose tensors hold nothing: they can be mixed with no others and read by nobody.
"""

import copy

import pytest
import torch

from opcd_agents.errors import UsageError
from opcd_agents.learner import checkpoint
from opcd_agents.learner.contexts import Fixed
from opcd_agents.learner.distill import distill
from opcd_agents.learner.playing import Subject
from opcd_agents.learner.roles import cast_roles
from opcd_agents.learner.rows import anchors
from opcd_agents.policies.huggingface import HuggingFacePolicy
from opcd_agents.policies.loading import check, device_here
from opcd_agents.recipe import recipe_from
from opcd_agents.rollout import play
from opcd_agents.runs import RunFolder

from .conftest import tiny
from .test_distill import CONTEXT, TASKS, PlainHouse

COMMON = {"updates": 2, "episodes": 4, "longest": 4, "validate": 2, "validation_episodes": 2, "diagnose": 4}


@pytest.mark.parametrize(
    "values",
    [
        {"teacher": "ema", "nca": 0.5, "pull": 0.1, "importance": 2.0, "temperature": 0.7, "anchors": 2},
        {"teacher": "0.5 frozen + 0.5 live", "divergence": "jsd", "support": "union", "top_k": 4, "row_tokens": 64},
        {"teacher": "trust", "divergence": "sampled", "average": "sequence", "learn": "answer"},
        {"method": "off-policy", "dtype": "bfloat16", "checkpointing": True, "anchors": 2},
        {"method": "grpo", "group": 2, "lora_rank": 2},
        {"rollouts": "replay", "lora_rank": 2},
    ],
    ids=["ema", "ensemble", "trust", "off", "grpo", "replay"],
)
@pytest.mark.filterwarnings("ignore:a live teacher")
def test_a_run_makes_its_tensors_where_the_model_is(tokenizer, renderer, tmp_path, values):
    policy = HuggingFacePolicy(tiny(len(tokenizer)), renderer, "tiny", longest=4)
    played = play(copy.copy(policy), TASKS[:3], PlainHouse, context=CONTEXT)
    subject = Subject(
        TASKS[:4], TASKS[4:], PlainHouse, Fixed(CONTEXT), [row for e in played for row in anchors(e, renderer)], played
    )
    run = RunFolder.create(tmp_path / "run", {})
    again = HuggingFacePolicy(tiny(len(tokenizer)), renderer, "tiny", longest=4)
    for one, resume in ((policy, False), (again, True)):
        recipe = recipe_from(COMMON | values)
        # peft makes an adapter on the default device and moves it, which from `meta` leaves nothing.
        roles = cast_roles(one, recipe, no_other) if recipe.lora_rank else None
        with torch.device("meta"):
            distill(one, subject, recipe, run, seed=7, resume=resume, roles=roles)
        assert checkpoint.present(run.checkpoint)
    for mine, theirs in zip(policy.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def no_other(name):
    raise AssertionError(name)


def test_a_model_is_tried_where_it_is(tokenizer, network):
    with torch.device("meta"):
        check(network, tokenizer, "tiny")


def test_each_process_takes_its_own_gpu(monkeypatch):
    assert device_here() == torch.device("cpu") or torch.cuda.is_available()
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert device_here() == torch.device("cuda", 0)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert device_here() == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UsageError, match="wanted a GPU for each process"):
        device_here()
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert device_here() == torch.device("cpu")
