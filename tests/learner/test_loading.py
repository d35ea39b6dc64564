"""A model folder is whole, or refused in a line: nothing is made up, nothing is a traceback."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Gemma3Config, Gemma3ForConditionalGeneration

from cli.saving import save_model
from opcd_agents.errors import ModelError, RunError
from opcd_agents.learner.distill import Distilled
from opcd_agents.learner.roles import cast_roles
from opcd_agents.policies.huggingface import HuggingFacePolicy
from opcd_agents.policies.loading import check, load, positions, quiet_peft
from opcd_agents.recipe import Recipe
from opcd_agents.runs import RunFolder
from opcd_agents.types import Example, Tokens

WEIGHTS = "model.safetensors"
RUN = {"model": "m", "tasks": "t", "contexts": [{"id": "c", "text": "x"}], "recipe": {"method": "opcd"}, "seed": 0}


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


def test_a_model_that_also_sees_is_taken_by_the_part_that_reads(tokenizer):
    """Gemma 3 from 4B on: the config of what reads lies inside of that of the whole."""
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    reads = size | {
        "vocab_size": len(tokenizer),
        "num_key_value_heads": 1,
        "head_dim": 8,
        "max_position_embeddings": 99,
    }
    sees = size | {"image_size": 28, "patch_size": 14}
    config = Gemma3Config(text_config=reads, vision_config=sees, mm_tokens_per_image=4)
    network = Gemma3ForConditionalGeneration(config).eval()
    check(network, tokenizer, "seer")
    assert positions(network) == 99
    network.config.get_text_config().final_logit_softcapping = 0.5
    with pytest.raises(ModelError, match="caps its logits"):
        check(network, tokenizer, "seer")


def test_a_model_that_cannot_be_written_leaves_no_part(network, renderer, tmp_path):
    run = RunFolder.create(tmp_path / "run", RUN)
    (run.path / "model").touch()
    with pytest.raises(RunError, match="--resume"):
        save_model(HuggingFacePolicy(network, renderer, "m"), run, Distilled(network, 1, 0, 0.0, 0))
    assert {path.name for path in run.path.iterdir()} == {"config.json", "model"}


@pytest.fixture
def adapter(folder, network, tokenizer, tmp_path_factory):
    """An adapter over `folder`, as peft saves it, and what it says."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(7)
    config = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    with quiet_peft():
        lora = get_peft_model(load(str(folder))[0], config).eval()
    where = tmp_path_factory.mktemp("adapter")
    lora.save_pretrained(where)
    tokenizer.save_pretrained(where)
    return where, said_by(lora)


def said_by(network):
    with torch.no_grad():
        return network(torch.tensor([[2, 40, 41, 42]])).logits


def test_an_adapter_is_loaded_as_one_plain_model(adapter, network):
    where, logits = adapter
    found, _ = load(str(where))
    assert not torch.allclose(logits, said_by(network))
    torch.testing.assert_close(said_by(found), logits)
    assert dict(found.named_parameters()).keys() == dict(network.named_parameters()).keys()


@pytest.mark.parametrize("lora_rank", [0, 2])
def test_what_an_adapter_was_trained_on_into_is_saved_whole(adapter, tmp_path, lora_rank):
    """Trained further, it is neither an adapter over weights that lie nowhere nor its base alone."""
    where, logits = adapter
    network, renderer = load(str(where))
    policy = HuggingFacePolicy(network, renderer, "adapter")
    roles = cast_roles(policy, Recipe(lora_rank=lora_rank), lambda name: None)  # type: ignore[arg-type, return-value]
    torch.testing.assert_close(said_by(policy.network), logits)
    row = Tokens((2, 40, 41, 42, 43), (False, False, True, True, True))
    told = roles.learner.teacher([row])  # type: ignore[misc]
    torch.testing.assert_close(torch.log_softmax(told.logits(slice(0, 3)), -1), torch.log_softmax(logits[0, 1:], -1))
    roles.learner.update([Example(row, Tokens((2, 50, *row.ids[1:]), (False, *row.sampled)))], scale=1e4)
    after = said_by(policy.network)
    assert not torch.allclose(after, logits)
    run = RunFolder.create(tmp_path / "run", RUN)
    save_model(policy, run, Distilled(roles.trained(), 1, 0, 0.0, 0))
    torch.testing.assert_close(said_by(load(str(run.path / "model"))[0]), after)


def test_an_adapter_whose_base_is_gone_says_so(adapter):
    where, _ = adapter
    config = json.loads((where / "adapter_config.json").read_text())
    (where / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "./gone"}))
    with pytest.raises(ModelError, match="wanted a causal language model"):
        load(str(where))
