"""Hidden states that are wanted are the same, with the same gradients, where the last layer is computed at them only."""

import pytest
import torch
from transformers import MixtralConfig, MixtralForCausalLM

from opcd_agents.policies.cache import RowCache
from opcd_agents.policies.last import last_layer_at

from .families import FAMILIES, SHAPE

AT = torch.tensor([0, 0, 2]), torch.tensor([1, 6, 0])
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
    parts = [layer.get_submodule(part) for layer in layers for part in ("self_attn.o_proj", "mlp.down_proj")]
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
    assert inside == [21, 21, 3, 3]
    for hook in hooks:
        hook.remove()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_hooks_go_when_a_pass_fails():
    network = made("llama")
    with pytest.raises(ZeroDivisionError), last_layer_at(network.get_decoder(), AT):
        _ = 1 / 0
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_experts_are_asked_as_ever():
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
