"""Fingerprints and splits of tasks. Knows no family of environments.

A split is a function of the fingerprint of the initial state alone, so no state stands on two sides.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from opcd_agents.types import Split, Task

if TYPE_CHECKING:
    from collections.abc import Iterable

_TRAIN, _VALIDATION = 0.50, 0.15


def fingerprint(value: Any) -> str:
    """sha256 (hex) of the canonical JSON of `value`."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def split_of(print_: str) -> Split:
    """The side of the split on which a fingerprint stands: 50 % train, 15 % validation, 35 % test."""
    share = int(print_[:12], 16) / 16**12
    if share < _TRAIN:
        return Split.TRAIN
    return Split.VALIDATION if share < _TRAIN + _VALIDATION else Split.TEST


def overlap(tasks: Iterable[Task]) -> int:
    """How many fingerprints stand in more than one split. Wanted: 0."""
    found: dict[str, set[Split]] = {}
    for task in tasks:
        found.setdefault(task.fingerprint, set()).add(task.split)
    return sum(len(splits) > 1 for splits in found.values())
