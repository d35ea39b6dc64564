"""What the passes of an update saw, in a few numbers: by turn, by class of token, entropies. Knows no loss.

A loss that falls says little of its own: OPCD-like runs go wrong at the first token (templates that differ), in late turns (the teacher is
unreliable on histories it would not have), or in style tokens that carry most of the KL (OPSD, arXiv 2601.18734).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from opcd_agents.learner.fused import Statistics
from opcd_agents.types import Example

CLASSES = ("first", "last", "inner")  # the first id of a reply, its last (the end, unless it was cut off), the others


@dataclass(frozen=True)
class Seen:
    """One pass.

    Attributes:
        examples: Its rows.
        losses: Loss of each sampled id [sampled ids].
        statistics: Of each sampled id.
    """

    examples: Sequence[Example]
    losses: Tensor
    statistics: Statistics


def summary(passes: Sequence[Seen]) -> Mapping[str, Any]:
    """Means over the ids that were learnt from; {} where nothing was seen.

    Returns:
        `kl_by_turn` (a list from the first turn on), `kl_by_class` (see `CLASSES`), `student_entropy`, `teacher_entropy`,
        `student_mass` and `teacher_mass` (of each one's likeliest ids), `said` (log-probability of the sampled ids), `reply` (how many ids
        of a reply were learnt from, where any were). What a teacher does not tell is left out.
    """
    if not passes:
        return {}
    replies = [reply for one in passes for example in one.examples for reply in _replies(example)]
    places = [(turn, kind) for turn, ids in replies for kind, learnt in ids if learnt]
    losses = torch.cat([one.losses for one in passes])
    kept = torch.tensor([learnt for _, ids in replies for _, learnt in ids], device=losses.device)
    turns = torch.tensor([turn for turn, _ in places], device=losses.device)
    kinds = torch.tensor([CLASSES.index(kind) for _, kind in places], device=losses.device)
    found: dict[str, Any] = {
        "kl_by_turn": _means(losses[kept], turns, int(turns.max()) + 1),
        "kl_by_class": dict(zip(CLASSES, _means(losses[kept], kinds, len(CLASSES)), strict=True)),
        "reply": len(places) / sum(any(learnt for _, learnt in ids) for _, ids in replies),
    }
    for name in (f.name for f in fields(Statistics)):
        mean = float(torch.cat([getattr(one.statistics, name) for one in passes])[kept].mean())
        found |= {name: mean} if mean == mean else {}  # NaN: there is no teacher, or it does not tell
    return found


def _replies(example: Example) -> list[tuple[int, list[tuple[str, bool]]]]:
    """Turn, and (class, whether learnt from) of each sampled id, of each reply in a row. A reply of one id is its first."""
    row, found = example.student, list[tuple[int, list[tuple[str, bool]]]]()
    learnt = iter(example.learnt or [True] * len(row.said))
    for at, mine in enumerate(row.sampled):
        if not mine:
            continue
        begins = not row.sampled[at - 1]
        ends = at + 1 == len(row.sampled) or not row.sampled[at + 1]
        if begins:
            found.append((example.turn + len(found), []))
        found[-1][1].append(("first" if begins else "last" if ends else "inner", next(learnt)))
    return found


def _means(values: Tensor, groups: Tensor, count: int) -> list[float | None]:
    """Mean of each group; None for an empty one."""
    sums = torch.zeros(count, dtype=values.dtype, device=values.device).index_add_(0, groups, values)
    sizes = torch.bincount(groups, minlength=count)
    return [float(total) / int(size) if size else None for total, size in zip(sums, sizes, strict=True)]
