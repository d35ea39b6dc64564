"""Keys and values of many rows of different lengths, kept without padding between the turns.

Row `b` owns cells `0 .. length[b]` of its lane; new ids are written right behind, so cell index and position
id are the same number, and one comparison makes the attention mask. Knows no sampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin

from opcd_agents.errors import ModelError
from opcd_agents.policies.last import Places, last_layer_at
from opcd_agents.policies.prefix import Prefix, can_read, reading

_STEP = 64  # cells added at a time
_FULL, _SLIDING = "full_attention", "sliding_attention"  # types of layers, as transformers calls them


class _Lane(CacheLayerMixin):
    """One layer: buffers [rows, heads, cells, size] and the cells that the next update writes to."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self._rows = rows
        self.at = torch.empty(0, dtype=torch.long)
        self.start = self.seen = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Take shape and dtype from the first states."""
        _, heads, _, size = key_states.shape
        self.keys = key_states.new_zeros(self._rows, heads, 0, size)
        self.values = value_states.new_zeros(self._rows, heads, 0, value_states.shape[-1])
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write states [rows, heads, new, size] at `at` [rows, new] of the rows from `start` on; return their cells up to `seen`."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        assert self.values is not None
        missing = self.seen - self.keys.shape[2]
        if missing > 0:
            room = -(-missing // _STEP) * _STEP
            self.keys = torch.nn.functional.pad(self.keys, (0, 0, 0, room))
            self.values = torch.nn.functional.pad(self.values, (0, 0, 0, room))
        stop = self.start + len(self.at)
        rows = torch.arange(self.start, stop, device=self.at.device)[:, None]
        self.keys[rows, :, self.at] = key_states.transpose(1, 2)
        self.values[rows, :, self.at] = value_states.transpose(1, 2)
        return self.keys[self.start : stop, :, : self.seen], self.values[self.start : stop, :, : self.seen]

    def swap(self, one: int, other: int) -> None:
        """Exchange two rows."""
        for states in (self.keys, self.values):
            assert states is not None
            states[[one, other]] = states[[other, one]]

    def copy_row(self, other: _Lane, rows: int, cells: int, spare: int) -> None:
        """Take the first cells of the one row of another lane, `rows` times, with `spare` empty cells behind."""
        self.keys = _repeated(other.keys, rows, cells, spare)
        self.values = _repeated(other.values, rows, cells, spare)
        self.is_initialized = True

    def join(self, other: _Lane) -> None:
        """Add the rows of another lane."""
        self.keys = _stacked(self.keys, other.keys)
        self.values = _stacked(self.values, other.values)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Cells that a query may look at, and the offset of the first."""
        return self.seen, 0

    def get_seq_length(self) -> int:
        """Cells in use."""
        return self.seen

    def get_max_length(self) -> int:
        """No limit."""
        return -1


class RowCache:
    """The states of a batch of growing rows under one model.

    Args:
        model: A decoder (without head) with full or sliding-window attention in each layer; see `loading.check`.
        rows: How many rows.
        before: How many ids of each row lie in a prefix that all share; they have no cells in the lanes.
        prefix: Its states.
    """

    def __init__(self, model: PreTrainedModel, rows: int, before: int = 0, prefix: Prefix | None = None) -> None:
        self._model = model
        self._lanes = [_Lane(rows) for _ in range(model.config.num_hidden_layers - _borrowing(model))]
        self._cache = Cache(layers=list(self._lanes))
        self._before, self._prefix = before, prefix
        self.lengths = torch.full((rows,), before, dtype=torch.long, device=model.device)

    def extend(self, ids: Tensor, counts: Tensor, start: int = 0, read: Places | None = None) -> Tensor:
        """Append ids to every row, or to some that follow each other.

        Args:
            ids: [rows, new], each row filled from the left.
            counts: [rows], how many of them are meant in each row.
            start: The first of these rows.
            read: Indices (row, new id) of the hidden states that are wanted; None: all.

        Returns:
            Hidden states [rows, new, size]; those behind a row's count, and those not wanted, mean nothing.

        Raises:
            ModelError: A row would be longer than the positions of the model.
        """
        stop = start + len(ids)
        at = self.lengths[start:stop, None] + torch.arange(ids.shape[1], device=ids.device)
        seen = int(at.max()) + 1
        lengths = self.lengths[start:stop] + counts
        places = self._places(at, seen, lengths)
        at, seen = at - self._before, seen - self._before
        for lane in self._lanes:
            lane.at, lane.start, lane.seen = at, start, seen
        masks: Any = self._masks(at, seen)  # some models take one for each type of layer
        with self._read_prefix(ids, counts, read), last_layer_at(self._model, read) if read else nullcontext():
            out = self._model(
                input_ids=ids, attention_mask=masks, position_ids=places, past_key_values=self._cache, use_cache=True
            )
        self.lengths = torch.cat([self.lengths[:start], lengths, self.lengths[stop:]])
        return out.last_hidden_state

    def _read_prefix(self, ids: Tensor, counts: Tensor, read: Places | None) -> AbstractContextManager[None]:
        """Have a pass over new ids read the prefix, if there is one."""
        if self._prefix is None:
            return nullcontext()
        meant = (torch.arange(ids.shape[1], device=ids.device) < counts[:, None]).nonzero()
        every = meant[:, 0], meant[:, 1]
        return reading(self._model.config, self._prefix, every, read or every)

    def _places(self, at: Tensor, seen: int, lengths: Tensor) -> Tensor:
        """Positions of the ids at `at`; of padding behind the last one that the model has, that one."""
        most: int | None = getattr(self._model.config, "max_position_embeddings", None)
        if most is None or seen <= most:
            return at
        if (longest := int(lengths.max())) > most:
            raise ModelError(
                f"wanted rows of at most {most} ids, the positions of the model, got one of {longest}; "
                "shorten the context, the replies or the episodes, or take a model with more positions"
            )
        return at.clamp(max=most - 1)

    def _masks(self, at: Tensor, seen: int) -> Tensor | dict[str, Tensor]:
        """What the ids at positions `at` [rows, new] must not look at: what comes later, or lies before a window."""
        cells, config = torch.arange(seen, device=at.device), self._model.config
        behind = cells > at[:, None, :, None]
        window = self._window()
        if window is None:
            return self._mask(behind)
        sliding = self._mask(behind | (cells <= at[:, None, :, None] - window))
        if not hasattr(config, "layer_types"):
            return sliding
        return {_FULL: self._mask(behind), _SLIDING: sliding}

    def _window(self) -> int | None:
        """How far some layers look back; None: all look at all."""
        config = self._model.config
        window: int | None = getattr(config, "sliding_window", None)
        types = set(getattr(config, "layer_types", None) or [_SLIDING if window else _FULL])
        return None if types == {_FULL} else window

    def _mask(self, hidden: Tensor) -> Tensor:
        mask = torch.zeros(hidden.shape, dtype=self._model.dtype, device=hidden.device)
        return mask.masked_fill_(hidden, torch.finfo(mask.dtype).min)

    def rewind(self, lengths: Sequence[int], start: int = 0) -> None:
        """Forget what lies behind the first ids of the rows from `start` on: none looks past its own length, and the next write goes there."""
        self.lengths = torch.cat([self.lengths[:start], torch.tensor(lengths, device=self.lengths.device)])

    def swap(self, one: int, other: int) -> None:
        """Exchange two rows: those that go on come first, so that the others need not be computed."""
        self.lengths[[one, other]] = self.lengths[[other, one]]
        for lane in self._lanes:
            lane.swap(one, other)

    def keep(self, rows: Sequence[int]) -> RowCache:
        """Drop all rows but these; returns itself."""
        index = torch.tensor(rows, device=self.lengths.device)
        self.lengths = self.lengths[index]
        for lane in self._lanes:
            lane.reorder_cache(index)  # pyright: ignore[reportArgumentType]
        return self

    def append(self, rows: Sequence[Sequence[int]], start: int = 0) -> Tensor:
        """Append its ids to each row, or to those from `start` on.

        Args:
            rows: Ids of each row, at least one.
            start: The first of these rows.

        Returns:
            The hidden state of each row's last id, [rows, size].
        """
        ids, counts = pad_rows(rows, self.lengths.device)
        last = torch.arange(len(rows), device=ids.device), counts - 1
        return self.extend(ids, counts, start, last)[last]

    def join(self, other: RowCache) -> None:
        """Add the rows of another cache behind these; both must have been extended."""
        self.lengths = torch.cat([self.lengths, other.lengths])
        for mine, theirs in zip(self._lanes, other._lanes, strict=True):
            mine.join(theirs)

    def spread(self, rows: int, spare: int, cells: int | None = None) -> RowCache:
        """Copy a cache of one row to `rows` rows: a shared prefix is computed once.

        Args:
            rows: How many rows.
            spare: Cells to make room for behind the prefix, so that they need not be added later.
            cells: Take so many of its cells only; None: all.
        """
        copy = RowCache(self._model, rows)
        kept = int(self.lengths[0]) if cells is None else cells
        copy.lengths = torch.full_like(copy.lengths, kept)
        for mine, theirs in zip(self._lanes, copy._lanes, strict=True):
            theirs.copy_row(mine, rows, kept, spare)
        return copy

    @property
    def can_be_shared(self) -> bool:
        """Whether its one row can be read by others as their prefix without a copy for each; it must have been extended."""
        keys, values = self._lanes[0].keys, self._lanes[0].values
        assert keys is not None
        assert values is not None
        return self._window() is None and not _borrowing(self._model) and can_read(self._model, keys, values)

    def shared(self, rows: int) -> RowCache:
        """Rows that go on behind this cache's one row, which all of them read; see `can_be_shared`."""
        cells = int(self.lengths[0])
        layers = tuple(_cut(lane, cells) for lane in self._lanes)
        return RowCache(self._model, rows, cells, Prefix(layers))


def _borrowing(model: PreTrainedModel) -> int:
    """How many of the last layers read the states of earlier ones and keep none (Gemma 3n, Gemma 4)."""
    return getattr(model.config, "num_kv_shared_layers", 0) or 0


def _cut(lane: _Lane, cells: int) -> tuple[Tensor, Tensor]:
    """Keys and values of a lane's first cells."""
    assert lane.keys is not None
    assert lane.values is not None
    return lane.keys[:, :, :cells], lane.values[:, :, :cells]


def _repeated(states: Tensor | None, rows: int, cells: int, spare: int) -> Tensor:
    assert states is not None
    _, heads, _, size = states.shape
    buffer = states.new_empty(rows, heads, cells + spare, size)
    buffer[:, :, :cells] = states[:, :, :cells]
    buffer[:, :, cells:] = 0  # a mask hides them, but NaN would shine through
    return buffer


def _stacked(first: Tensor | None, second: Tensor | None) -> Tensor:
    """Rows of both [rows, heads, cells, size], with as many cells as the longer has."""
    assert first is not None
    assert second is not None
    cells = max(first.shape[2], second.shape[2])
    return torch.cat([torch.nn.functional.pad(s, (0, 0, 0, cells - s.shape[2])) for s in (first, second)])


def pad_rows(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows of ids to a tensor [rows, longest] filled from the left with 0 behind, and their lengths [rows]."""
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=device)
    return ids, torch.tensor([len(row) for row in rows], device=device)
