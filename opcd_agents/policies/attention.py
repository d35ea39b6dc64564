"""Attention for rows that are decoded one id at a time: plain products instead of a fused kernel.

The CPU's fused kernels are made for long queries; with a query of one id, two batched products are several times
cheaper. Longer queries go to PyTorch's `scaled_dot_product_attention` as ever. Knows no models.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

NAME = "opcd_rows"


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it.

    Args:
        module: The attention layer.
        query: [rows, heads, new, size].
        key: [rows, key heads, cells, size]; several query heads may share a key head.
        value: Like `key`.
        attention_mask: Additive, [rows, 1, new, cells], or None.
        scaling: Factor of the products; None: 1 / sqrt(size).
        **kwargs: For `scaled_dot_product_attention`.

    Returns:
        [rows, new, heads, size], and None for the weights.
    """
    rows, heads, new, size = query.shape
    if new > 1 or attention_mask is None or torch.is_grad_enabled():
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    groups = query.reshape(rows, key.shape[1], heads // key.shape[1], size)
    scores = (groups * (scaling or size**-0.5)) @ key.transpose(2, 3)
    weights = torch.softmax(scores + attention_mask, -1)
    return (weights @ value).reshape(rows, 1, heads, size), None


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
