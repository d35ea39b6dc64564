"""Hidden states at the positions that predict sampled ids, for the student with and a teacher without gradient.

A prefix that all teacher rows share (the context) is computed once for these weights and kept. Knows no loss.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from os.path import commonprefix

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from opcd_agents.learner.sharding import decoder_of
from opcd_agents.policies.cache import RowCache, pad_rows
from opcd_agents.policies.last import last_layer_at
from opcd_agents.types import Tokens

_LONG = 512  # ids of a prefix from which reading it once for all rows is faster than a copy for each


@dataclass(frozen=True)
class Passes:
    """How a teacher's rows are taken through its model.

    Attributes:
        row_tokens: Most ids of one pass, padding included, and the prefix where every row of a pass has a copy of its states.
            A single row may be longer.
        dtype: What is computed in, as the student's passes are; None: that of the weights.
    """

    row_tokens: int = 8192
    dtype: torch.dtype | None = None


def predicting(rows: Sequence[Tokens], offset: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Indices (row, position) whose hidden state predicts a sampled id.

    Args:
        rows: The rows.
        offset: How many ids at the front of each row are left out of the hidden states.
        device: Where the indices go.

    Returns:
        Two long tensors [sampled ids], in row order.
    """
    pairs = [(r, i - 1 - offset) for r, row in enumerate(rows) for i, mine in enumerate(row.sampled) if mine]
    index = torch.tensor(pairs, device=device)
    return index[:, 0], index[:, 1]


def student_states(
    network: PreTrainedModel, rows: Sequence[Tokens], dtype: torch.dtype | None = None, *, checkpointing: bool = False
) -> Tensor:
    """Hidden states [sampled ids, size] with gradient. Rows are padded on the right, so causality needs no mask.

    Args:
        network: The student.
        rows: Its rows.
        dtype: What the pass is computed in, if not in that of the weights.
        checkpointing: Compute activations again in the backward pass instead of keeping them.
    """
    ids, _ = pad_rows([row.ids for row in rows], network.device)
    read = predicting(rows, 0, network.device)
    # A layer that is computed again in the backward pass must be so in the same way, and then nobody reads.
    saving = _recomputed(network) if checkpointing else last_layer_at(network.get_decoder(), read)
    with _lowered(network, dtype), saving:
        hidden = decoder_of(network)(input_ids=ids, use_cache=False).last_hidden_state[read]
    return hidden if dtype is None else hidden.to(dtype)


def _lowered(network: PreTrainedModel, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    """Compute in another type than that of the weights."""
    return torch.autocast(network.device.type, dtype) if dtype not in (None, network.dtype) else nullcontext()


@contextmanager
def _recomputed(network: PreTrainedModel) -> Generator[None]:
    """Checkpoint each layer of a pass; only those layers are told that they train, so that dropout stays off."""
    network.activation_checkpointing_enable({"use_reentrant": False})
    layers = [module for module in network.modules() if isinstance(module, GradientCheckpointingLayer)]
    for layer in layers:
        layer.training = True
    try:
        yield
    finally:
        network.activation_checkpointing_disable()
        for layer in layers:
            layer.training = False


def _parts(rows: Sequence[Tokens], most: int, aside: int) -> Iterator[list[Tokens]]:
    """Rows that follow each other, in parts that are no larger than a budget once they are padded; `aside` ids of each do not count."""
    part: list[Tokens] = []
    for row in rows:
        if part and (len(part) + 1) * (max(len(one.ids) for one in (*part, row)) - aside) > most:
            yield part
            part = []
        part.append(row)
    yield part


class PrefixStates:
    """What a model thinks of rows, and the states of the prefixes it was asked about most recently.

    Args:
        network: The model; where its weights change, `forget` must be called.
        kept: How many prefixes to remember.
    """

    def __init__(self, network: PreTrainedModel, kept: int = 16) -> None:
        self.network = network
        self._kept = kept
        self._prefixes: dict[tuple[int, ...], RowCache] = {}

    @torch.no_grad()
    def __call__(self, rows: Sequence[Tokens], passes: Passes) -> Tensor:
        """Hidden states [sampled ids, size] of rows that may share a prefix, in as many passes as it takes."""
        before = self._shared(rows)
        with _lowered(self.network, passes.dtype):
            prefix = self._prefix(rows[0].ids[:before]) if before else None
            read = prefix is not None and before >= _LONG and prefix.can_be_shared
            parts = list(_parts(rows, passes.row_tokens, before if read else 0))
            most, longest = max(map(len, parts)), max(len(row.ids) for row in rows)
            cache = self._behind(prefix, most, None if read else longest - before)
            found = torch.cat([self._pass(cache, part, before) for part in parts])
        return found if passes.dtype is None else found.to(passes.dtype)

    def _behind(self, prefix: RowCache | None, rows: int, spare: int | None) -> RowCache:
        """Rows that begin behind a prefix: they read it, or with `spare` cells for more each has a copy."""
        if prefix is None:
            return self._empty(rows)
        return prefix.shared(rows) if spare is None else prefix.spread(rows, spare)

    def _pass(self, cache: RowCache, rows: Sequence[Tokens], before: int) -> Tensor:
        """One pass, in the cells behind the prefix, over those of the pass before."""
        cache.rewind([before] * len(cache.lengths))
        read = predicting(rows, before, self.network.device)
        return cache.extend(*pad_rows([row.ids[before:] for row in rows], self.network.device), read=read)[read]

    def forget(self) -> None:
        """The weights have changed."""
        self._prefixes.clear()

    def _shared(self, rows: Sequence[Tokens]) -> int:
        """Length of the common prefix, ending before the id in front of the first sampled one."""
        first = min(row.sampled.index(True) for row in rows)
        return min(len(commonprefix([row.ids for row in rows])), first - 1)

    def _empty(self, rows: int) -> RowCache:
        return RowCache(self.network.get_decoder(), rows)

    def _prefix(self, ids: tuple[int, ...]) -> RowCache:
        cache = self._prefixes.pop(ids, None)
        if cache is None:
            cache = self._empty(1)
            cache.append([ids])
        self._prefixes[ids] = cache
        if len(self._prefixes) > self._kept:
            del self._prefixes[next(iter(self._prefixes))]
        return cache
