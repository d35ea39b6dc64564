"""A long prefix that all rows read without a copy gives the states of whole rows; where it cannot be read so, rows have copies."""

from typing import Any

import pytest
import torch
from transformers import Gemma4ForCausalLM, Gemma4TextConfig, MistralConfig, MistralForCausalLM

from opcd_agents.errors import ModelError
from opcd_agents.learner.forward import Passes, PrefixStates, student_states
from opcd_agents.policies import prefix
from opcd_agents.policies.cache import RowCache
from opcd_agents.types import Tokens

from .families import FAMILIES, SHAPE

LONG = 600  # ids, more than what is worth reading so


def rows_behind(context, lengths, seed=0):
    """Rows that begin alike, of different lengths, each with several replies."""
    rng = torch.Generator().manual_seed(seed)
    opening = torch.randint(60, (context,), generator=rng).tolist()
    rows = []
    for length in lengths:
        ids = torch.randint(60, (length,), generator=rng).tolist()
        rows.append(Tokens((*opening, *ids), (False,) * (context + 2) + tuple(i % 5 > 2 for i in range(2, length))))
    return rows


def made(name, **more):
    """A tiny model of a family; its weights are large enough for the prefix to matter."""
    torch.manual_seed(1)
    family = FAMILIES[name]
    network = family.model(family.config(vocab_size=60, **{**SHAPE, **more})).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4)
    return network


@pytest.fixture
def readings(monkeypatch):
    """How many layers read a prefix, in all passes of the test."""
    read, kernel = [], prefix._attend
    monkeypatch.setitem(
        prefix.AttentionInterface._global_mapping, prefix._NAME, lambda *a, **k: (read.append(1), kernel(*a, **k))[1]
    )
    return read


@pytest.mark.parametrize("name", ["qwen3", "llama"])
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_states_are_those_of_whole_rows(name, heads, readings):
    network = made(name, num_attention_heads=4, num_key_value_heads=heads)
    rows = rows_behind(LONG, (30, 9, 17))
    states = PrefixStates(network)
    whole = student_states(network, rows).detach()
    for _ in range(2):  # the second time from the kept prefix
        torch.testing.assert_close(states(rows, Passes()), whole, atol=2e-4, rtol=1e-4)
    assert len(readings) == 2 * network.config.num_hidden_layers
    shuffled = rows_behind(LONG, (30, 9, 17))
    other = [Tokens((1 + shuffled[0].ids[0] % 50, *row.ids[1:]), row.sampled) for row in shuffled]
    assert not torch.allclose(states(other, Passes()), whole, atol=1e-2)  # so the prefix is seen at all


def test_passes_may_be_of_different_numbers_of_rows(readings):
    network = made("qwen3")
    rows = rows_behind(LONG, (40, 9, 9, 9, 9, 25))
    whole = student_states(network, rows).detach()
    torch.testing.assert_close(PrefixStates(network)(rows, Passes(row_tokens=45)), whole, atol=2e-4, rtol=1e-4)
    assert len(readings) == 3 * network.config.num_hidden_layers  # 40 | 9 9 9 9 | 25: the prefix does not count


def test_rows_that_share_nothing_go_in_passes_of_different_numbers():
    network = made("qwen3")
    rows = [rows_behind(0, (length,), seed)[0] for seed, length in enumerate((20, 5, 5, 5))]
    whole = student_states(network, rows).detach()
    torch.testing.assert_close(PrefixStates(network)(rows, Passes(row_tokens=21)), whole, atol=2e-4, rtol=1e-4)


def test_bfloat16_passes_read_it_too(readings):
    network = made("llama")
    rows = rows_behind(LONG, (30, 9, 17))
    whole = student_states(network, rows).detach()
    low = PrefixStates(network)(rows, Passes(dtype=torch.bfloat16)).float()
    assert readings
    assert (low - whole).norm() < 0.05 * whole.norm()


def borrowing():
    """A model whose last two layers read the states of earlier ones."""
    shape: dict[str, Any] = SHAPE | {
        "num_hidden_layers": 4,
        "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "global_head_dim": 16,
        "vocab_size_per_layer_input": 60,
        "hidden_size_per_layer_input": 8,
        "pad_token_id": 0,
    }
    config = Gemma4TextConfig(vocab_size=60, sliding_window=4, **shape)
    return Gemma4ForCausalLM(config).eval()


def test_layers_that_keep_no_states_have_no_cells():
    network = borrowing()
    ids = torch.randint(60, (3, 9), generator=torch.Generator().manual_seed(0))
    whole = network.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state.detach()
    with torch.no_grad():
        cache = RowCache(network.get_decoder(), 2)
        cache.append(ids[:2, :4].tolist())
        late = RowCache(network.get_decoder(), 1)
        late.append(ids[2:, :4].tolist())
        cache.join(late)
        cache.swap(0, 2)
        found = cache.keep([0, 2]).append(ids[[2, 0], 4:].tolist())
    torch.testing.assert_close(found, whole[[2, 0], 8], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["window", "eager", "borrowing"])
def test_other_attention_has_copies(kind, readings):
    network = made("qwen3")
    if kind == "window":
        network = MistralForCausalLM(MistralConfig(vocab_size=60, **SHAPE, sliding_window=700)).eval()
    elif kind == "borrowing":
        network = borrowing()
    else:
        network.set_attn_implementation("eager")
    rows = rows_behind(LONG, (200, 9))
    whole = student_states(network, rows).detach()
    torch.testing.assert_close(PrefixStates(network)(rows, Passes()), whole, atol=2e-4, rtol=1e-4)
    assert not readings


def test_a_layer_that_reads_no_prefix_is_noticed():
    network = made("llama")
    attention = network.model.layers[1].self_attn
    attention.config = type(attention.config)(**attention.config.to_dict(), attn_implementation="sdpa")
    with pytest.raises(ModelError, match="all 2 layers to read the context, got 1"):
        PrefixStates(network)(rows_behind(LONG, (30, 9)), Passes())
    assert network.config._attn_implementation == "sdpa"
    student_states(network, rows_behind(4, (30, 9)))  # as before


def test_what_the_kernel_does_not_know_is_refused():
    network, places = made("llama"), (torch.tensor([0]), torch.tensor([0]))
    reading = prefix.reading(network.config, prefix.Prefix(()), places, places)
    with torch.no_grad(), pytest.raises(ModelError, match="asks for softcap"), reading:
        network.get_decoder()(torch.tensor([[1]]), attention_mask=torch.zeros(1, 1, 1, 1), use_cache=False, softcap=30)
