"""Hidden states that are wanted are the same, with the same gradients, where the last layer is computed at them only."""

from typing import Any

import pytest
import torch
from transformers import KimiLinearConfig, KimiLinearForCausalLM, MixtralConfig, MixtralForCausalLM

from opcd_agents.learner.forward import Passes, PrefixStates, student_states
from opcd_agents.policies.cache import RowCache
from opcd_agents.policies.last import last_layer_at
from opcd_agents.types import Tokens

from .families import FAMILIES, SHAPE

AT = torch.tensor([0, 0, 2]), torch.tensor([1, 6, 0])
PARTS = "self_attn.q_proj", "self_attn.o_proj", "mlp.down_proj"
IDS = torch.randint(60, (3, 7), generator=torch.Generator().manual_seed(0))


def made(name):
    torch.manual_seed(1)
    family = FAMILIES[name]
    return family.model(family.config(vocab_size=60, **SHAPE)).eval().double()


def states(network):
    return network.get_decoder()(input_ids=IDS, use_cache=False).last_hidden_state[AT]


def seen(part, into):
    """Notes how many states a part is given."""
    return part.register_forward_hook(lambda _, args, out: into.append(out.shape[:-1].numel()))


@pytest.mark.parametrize("name", FAMILIES)
def test_states_and_gradients_are_the_same(name):
    network = made(name)
    layers = network.get_decoder().layers
    parts = [layer.get_submodule(part) for layer in layers for part in PARTS]
    whole = states(network)
    whole.square().sum().backward()
    wanted = {
        name: parameter.grad.clone() for name, parameter in network.named_parameters() if parameter.grad is not None
    }
    network.zero_grad()
    inside: list[int] = []
    hooks = [seen(part, inside) for part in parts]
    with last_layer_at(network.get_decoder(), AT):
        part = states(network)
    part.square().sum().backward()
    torch.testing.assert_close(part, whole)
    for name, parameter in network.named_parameters():
        if name in wanted:
            torch.testing.assert_close(parameter.grad, wanted[name])
    assert inside == [21, 21, 21, 3, 3, 3]
    for hook in hooks:
        hook.remove()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_hooks_go_when_a_pass_fails():
    network = made("llama")
    broken = network.get_submodule("model.layers.1.mlp.down_proj").register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError), last_layer_at(network.get_decoder(), AT):
        states(network)
    broken.remove()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_experts_are_given_all_states():
    torch.manual_seed(1)
    config = MixtralConfig(vocab_size=60, num_local_experts=2, sliding_window=None, **SHAPE)
    network = MixtralForCausalLM(config).eval()
    found: list[int] = []
    hook = seen(network.get_submodule("model.layers.1.mlp"), found)
    whole = states(network)
    with last_layer_at(network.get_decoder(), AT):
        torch.testing.assert_close(states(network), whole)
    hook.remove()
    assert found == [21, 21]


def test_a_layer_that_convolves_is_computed_whole():
    """Kimi's linear attention looks back by a convolution behind its projections."""
    torch.manual_seed(1)
    size: dict[str, Any] = {"kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8}
    layers: dict[str, Any] = {"layer_types": ["full_attention", "linear_attention"], "mlp_layer_types": ["dense"] * 2}
    config = KimiLinearConfig(vocab_size=60, **SHAPE | {"num_key_value_heads": 4}, **size, **layers)
    network = KimiLinearForCausalLM(config).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    whole = states(network)
    with last_layer_at(network.get_decoder(), AT):
        torch.testing.assert_close(states(network), whole)


def test_student_and_teacher_spare_what_nobody_reads():
    """Rows of 40 shared ids and 6 of their own, of which the last two are sampled."""
    network = made("qwen3")
    found: list[int] = []
    hook = seen(network.get_submodule("model.layers.1.self_attn.o_proj"), found)
    rows = [Tokens((*range(3, 43), first, 9, 10, 11, 12, 13), (False,) * 44 + (True,) * 2) for first in (5, 6)]
    student_states(network, rows)
    PrefixStates(network)(rows, Passes())
    hook.remove()
    assert found == [4, 1, 4]  # the student; the prefix, and the rows behind it


def test_later_turns_read_whole_rows():
    """What the last layer leaves out is in nobody's keys and values."""
    network = made("qwen3")
    whole = network.get_decoder()(input_ids=IDS, use_cache=False).last_hidden_state
    with torch.no_grad():
        cache = RowCache(network.get_decoder(), 3)
        rows = torch.arange(3)
        first = cache.append(IDS[:, :4].tolist())
        second = cache.append(IDS[:, 4:].tolist())
    torch.testing.assert_close(first, whole[rows, 3])
    torch.testing.assert_close(second, whole[rows, 6])
