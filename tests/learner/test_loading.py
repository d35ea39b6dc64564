"""A model folder is whole, or refused in a line: nothing is made up, nothing is a traceback."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from cli.training import save_model
from opcd_agents.errors import ModelError, RunError
from opcd_agents.learner.distill import Distilled
from opcd_agents.policies.huggingface import HuggingFacePolicy
from opcd_agents.policies.loading import check, load
from opcd_agents.runs import RunFolder

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(network, tokenizer, tmp_path):
    network.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


def test_what_was_saved_is_loaded(folder, network):
    found, _ = load(str(folder))
    for a, b in zip(found.parameters(), network.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("damage", [lambda data: data[:200], lambda data: b"", lambda data: b"\xff" * 300])
def test_damaged_weights_are_refused(folder, damage):
    file = folder / WEIGHTS
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ModelError, match="wanted a causal language model"):
        load(str(folder))


def test_weights_that_are_missing_are_not_made_up(folder):
    tensors = load_file(folder / WEIGHTS)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 weights .* model.layers.1.mlp.up_proj.weight"):
        load(str(folder))


def test_a_config_of_another_shape_is_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": 64}))
    with pytest.raises(ModelError):
        load(str(folder))


@pytest.mark.parametrize("key", ["logits_scaling", "logit_scale", "final_logit_softcapping"])
def test_logits_that_are_more_than_a_product_are_refused(network, tokenizer, key):
    setattr(network.config, key, 0.5)
    with pytest.raises(ModelError, match="logits"):
        check(network, tokenizer, "odd")


def test_a_model_that_cannot_be_written_leaves_no_part(network, renderer, tmp_path):
    run = RunFolder.create(
        tmp_path / "run",
        {"model": "m", "tasks": "t", "contexts": [{"id": "c", "text": "x"}], "recipe": {"method": "opcd"}, "seed": 0},
    )
    (run.path / "model").touch()
    with pytest.raises(RunError, match="--resume"):
        save_model(HuggingFacePolicy(network, renderer, "m"), run, Distilled(network, 1, 0, 0.0, 0))
    assert {path.name for path in run.path.iterdir()} == {"config.json", "model"}
