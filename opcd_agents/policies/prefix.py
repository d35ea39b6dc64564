"""Attention of many rows to a prefix that they share: its keys and values are read once for all, not copied for each.

A row's weights over prefix and own cells are those of one softmax: both parts are taken alone, with the logarithm of their
sums, and put together by these (Dao et al. 2022, arXiv 2205.14135, section 3.1; for prefixes: Juravsky et al. 2024, arXiv
2402.05099). It comes in as an attention function of transformers, for the passes that `reading` surrounds. CPU only: the kernel
that tells its sums has another name on each device. Knows no rows' lengths and no masks but the one it is given.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, PretrainedConfig, PreTrainedModel

from opcd_agents.errors import ModelError
from opcd_agents.policies.last import Places

_NAME = "opcd_shared_prefix"
_OTHER = "softcap", "s_aux", "position_bias"  # what some models ask of their attention besides
_KERNEL = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # what SDPA calls, which hides the sums


@dataclass(frozen=True)
class Prefix:
    """Keys and values of each layer, each [1, key heads, cells, size]."""

    layers: tuple[tuple[Tensor, Tensor], ...]


@dataclass
class _Reading:
    """A pass under way: its prefix, who reads it, in the last layer and before, and how many layers have read it."""

    prefix: Prefix
    every: Places
    last: Places
    layers: int = 0


_readings: list[_Reading] = []


def can_read(model: PreTrainedModel, keys: Tensor, values: Tensor) -> bool:
    """Whether a decoder with full attention in each layer can read its states as a shared prefix."""
    attention = model.config._attn_implementation  # pyright: ignore[reportPrivateUsage]
    asked = model.device.type == "cpu" and attention == "sdpa" and model._supports_attention_backend  # pyright: ignore[reportPrivateUsage]
    return asked and keys.shape[-1] == values.shape[-1]


@contextmanager
def reading(config: PretrainedConfig, prefix: Prefix, every: Places, last: Places) -> Generator[None]:
    """Have a pass of a model with this config read a prefix before its own cells.

    Args:
        config: The model's.
        prefix: What is read.
        every: Its new ids; what is padding reads nothing.
        last: Those whose hidden states are wanted, of which alone the last layer takes notice.

    Raises:
        ModelError: A layer did not read it, so that what came out is wrong.
    """
    usual: Any = config._attn_implementation  # pyright: ignore[reportPrivateUsage]
    config._attn_implementation = _NAME  # pyright: ignore[reportPrivateUsage]
    _readings.append(_Reading(prefix, every, last))
    try:
        yield
        if _readings[-1].layers != len(prefix.layers):
            raise ModelError(
                f"wanted all {len(prefix.layers)} layers to read the context, got {_readings[-1].layers}; the model's attention is "
                "of a kind that is not known yet; take one of transformers' own, or attn_implementation = 'eager'"
            )
    finally:
        _readings.pop()
        config._attn_implementation = usual  # pyright: ignore[reportPrivateUsage]


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers asks for it.

    Args:
        module: The layer.
        query: [rows, heads, new, size].
        key: [rows, key heads, cells, size], of the rows' own cells.
        value: As `key`.
        attention_mask: [rows, 1, new, cells], added to the scores.
        scaling: Factor of the scores.
        others: What this does not know must be None.

    Returns:
        [rows, new, heads, size], and no weights.
    """
    if unknown := [name for name in _OTHER if others.get(name) is not None]:
        raise ModelError(
            f"wanted plain attention, got a model that asks for {unknown[0]}; take attn_implementation = 'eager'"
        )
    now = _readings[-1]
    now.layers += 1
    rows, heads, new, size = query.shape
    kept = key.shape[1]
    groups = heads // kept
    low = value.dtype  # under autocast norms leave queries and keys in float32
    query = query.to(low).view(rows, kept, groups, new, size)  # heads that share their keys are more queries
    at = now.last if module.layer_idx == len(now.prefix.layers) - 1 else now.every
    past_key, past_value = now.prefix.layers[module.layer_idx]
    there, there_sum = _of_prefix(query, at, past_key.to(low), past_value.to(low), scaling)
    mask = attention_mask.to(low).repeat(1, 1, groups, 1)
    folded = query.reshape(rows, kept, groups * new, size)
    here, here_sum = _KERNEL(folded, key.to(low), value, attn_mask=mask, scale=scaling)
    share = torch.sigmoid(there_sum.view(here_sum.shape) - here_sum)
    both = torch.lerp(here, there.view(here.shape), share[..., None].to(low))
    return both.reshape(rows, heads, new, size).transpose(1, 2), None


def _of_prefix(query: Tensor, at: Places, keys: Tensor, values: Tensor, scaling: float | None) -> tuple[Tensor, Tensor]:
    """What queries [rows, key heads, groups, new, size] read in a prefix, of the same shape, and the logarithms of their sums.

    Those that are not at `at` read nothing: 0, with the logarithm of 0.
    """
    row, place = at
    asking = query[row, :, :, place]  # [asking, key heads, groups, size]
    flat = asking.transpose(0, 1).flatten(1, 2)[None]
    found, sums = _KERNEL(flat, keys, values, scale=scaling)
    there, there_sum = query.new_zeros(query.shape), sums.new_full(query.shape[:-1], -torch.inf)
    there[row, :, :, place] = found[0].view(asking.transpose(0, 1).shape).transpose(0, 1)
    there_sum[row, :, :, place] = sums[0].view(asking.shape[1], -1, asking.shape[2]).transpose(0, 1)
    return there, there_sum


AttentionInterface.register(_NAME, _attend)
