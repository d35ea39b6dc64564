"""One id a row from logits, by inverse CDF in two levels: first a block of the vocabulary, then an id inside it.

One uniform number decides a row, so a draw can be repeated exactly and is no affair of the rows beside it. Only
block sums and the one chosen block are cumulated: noise or a running sum for every entry of the vocabulary would
cost more than the model. Knows no model.
"""

from __future__ import annotations

import torch
from torch import Tensor

from opcd_agents.errors import ModelError

_BLOCK = 512  # near the root of usual vocabularies, so that neither level is long
_MOST = 1 - 2**-52  # of a sum, stays below it however the product rounds: the column found is never one of weight 0


def draw(logits: Tensor, temperature: float, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Draw one id a row.

    Args:
        logits: [rows, vocabulary]; overwritten, for a second array of that size would cost more than the draw.
        temperature: 0 takes the likeliest id, and scores it at temperature 1.
        uniform: [rows] in float64, at least 0 and less than 1; not read at temperature 0.

    Returns:
        Ids [rows], none of probability 0, and their log-probabilities [rows] in nats under the tempered distribution.

    Raises:
        ModelError: A row holds NaN or +inf, or nothing but -inf.
    """
    likeliest = logits.argmax(-1) if temperature == 0 else None
    weights = logits.float()
    if temperature not in (0, 1):
        weights.div_(temperature)
    torch.softmax(weights, -1, out=weights)  # of all ways to exp(logits - max) the kernel that is fastest
    sums = _block_sums(weights)
    if not sums.isfinite().all():
        raise ModelError("wanted finite logits, got NaN or infinity; are the weights damaged?")
    ids = _two_levels(weights, sums, uniform) if likeliest is None else likeliest
    total = sums.sum(-1, dtype=torch.double)  # near 1: the kernel's own sum is 1e-5 off where vocabularies are large
    return ids, weights.gather(1, ids[:, None])[:, 0].double().log() - total.log()


def _block_sums(weights: Tensor) -> Tensor:
    """Sums of each `_BLOCK` columns; the last may be of fewer."""
    whole = weights.shape[1] // _BLOCK * _BLOCK
    body = weights[:, :whole].unflatten(1, (-1, _BLOCK)).sum(-1) if whole else weights[:, :0]
    rest = weights[:, whole:]
    return torch.cat([body, rest.sum(-1, keepdim=True)], 1) if rest.shape[1] else body


def _two_levels(weights: Tensor, sums: Tensor, uniform: Tensor) -> Tensor:
    block, rest = _pick(sums, uniform)
    columns = block[:, None] * _BLOCK + torch.arange(_BLOCK, device=block.device)
    last = weights.shape[1] - 1
    inside = weights.gather(1, columns.clamp(max=last)).masked_fill(columns > last, 0)
    return block * _BLOCK + _pick(inside, rest)[0]


def _pick(weights: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """The column of each row in which a part of the row's sum falls, and how far into it: a number from 0 to 1."""
    heights = weights.double().cumsum(-1)
    goal = uniform.clamp(0, _MOST)[:, None] * heights[:, -1:]
    column = torch.searchsorted(heights, goal, right=True)
    into = (goal - heights.gather(1, column)) / weights.gather(1, column) + 1
    return column[:, 0], into[:, 0]
