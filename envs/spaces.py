"""A Gymnasium space for free text. Knows no game and no alphabet.

`gymnasium.spaces.Text` holds letters and digits only, and in an asynchronous vector with shared memory its
observations silently freeze. This space is none of Gymnasium's own kinds, so shared memory refuses it aloud.
"""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any, final

import gymnasium

if TYPE_CHECKING:
    from collections.abc import Sequence

_LETTERS = string.ascii_lowercase + " "


@final
class FreeText(gymnasium.Space[str]):
    """Every `str` of up to `max_length` characters, the empty one included."""

    def __init__(self, max_length: int, seed: int | None = None) -> None:
        """Make the space.

        Args:
            max_length: The most characters a member may have.
            seed: Seed of `sample`.
        """
        super().__init__(dtype=str, seed=seed)
        self.max_length = max_length

    @property
    def is_np_flattenable(self) -> bool:
        """Text has no fixed width: always False."""
        return False

    def sample(self, mask: Sequence[str] | None = None, probability: None = None) -> str:
        """Draw a text: one of `mask` (such as `info["admissible_commands"]`), else random letters."""
        if mask:
            return mask[int(self.np_random.integers(len(mask)))]
        length = int(self.np_random.integers(1, min(20, self.max_length) + 1))
        return "".join(_LETTERS[i] for i in self.np_random.integers(len(_LETTERS), size=length))

    def contains(self, x: Any) -> bool:
        """Whether `x` is a text that is short enough."""
        return isinstance(x, str) and len(x) <= self.max_length

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FreeText) and other.max_length == self.max_length

    def __hash__(self) -> int:
        return hash((FreeText, self.max_length))

    def __repr__(self) -> str:
        return f"FreeText({self.max_length})"
