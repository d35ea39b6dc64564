"""The last layer of a decoder, computed only where somebody reads it.

What an earlier layer makes of an id is read by all that follow, through keys and values; what the last one makes of it is read by
the head alone, at the ids that predict a sampled one. There its queries, the projection behind its attention and its feed-forward
part are needed, elsewhere none of them: in a model of few layers a good part of all work, in one of many little. Knows no rows.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

Places = tuple[Tensor, Tensor]  # indices (row, position)
_PARTS = "self_attn.q_proj", "self_attn.o_proj", "mlp"  # as most decoders call what maps each state by itself


@contextmanager
def last_layer_at(decoder: PreTrainedModel, at: Places) -> Generator[None]:
    """Have the passes of a decoder compute its last layer at some states only; the other hidden states mean nothing.

    Args:
        decoder: Without head. Parts with other names, or that mix experts, are computed as ever, and so is a layer that looks back by other
            means than attention (a convolution): it would read what was left out.
        at: The states that are read, each once.
    """
    hooks = [hook for part in _parts(decoder) for hook in _narrow(part, at)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _parts(decoder: PreTrainedModel) -> Iterator[torch.nn.Module]:
    """The parts of the last layer that are made of nothing but linear maps."""
    layers: Any = getattr(decoder, "layers", None)
    known = dict(layers[-1].named_modules()) if layers else {}
    if any(isinstance(m, torch.nn.Conv1d) for m in known.values()):
        return
    for part in (known[name] for name in _PARTS if name in known):
        if all(
            isinstance(m, torch.nn.Linear)
            for m in part.modules()
            if next(m.parameters(recurse=False), None) is not None
        ):
            yield part


def _narrow(part: torch.nn.Module, at: Places) -> tuple[Any, Any]:
    """Have a part see only the states `at`, and put what it makes of them, [1, states, size], back into their places."""
    shape: list[int] = []

    def gather(_: torch.nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        shape[:] = args[0].shape[:2]
        return (args[0][at][None],)

    def scatter(_: torch.nn.Module, args: tuple[Tensor], found: Tensor) -> Tensor:
        return found.new_zeros(*shape, found.shape[-1]).index_put(at, found[0])

    return part.register_forward_pre_hook(gather), part.register_forward_hook(scatter)
