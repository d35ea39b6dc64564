"""The games of the OPCD paper (arXiv 2602.12275) as its released code sets them up: seeds and rounds.

These splits leak: training and held-out seeds draw from the same few boards. They exist so that published numbers can be
compared; `envs.overlap` counts the leak. Knows no game.
"""

from typing import Final

ROUNDS: Final = 5
_HELD_OUT: Final = 468_460_046
_TRAINING: Final = 495_209_463  # round 0 of the released scripts


class Seeds:
    """TextArena seeds of each side, 128 held out, 50 updates of 64 training games."""

    held_out: Final = range(_HELD_OUT, _HELD_OUT + 128 * 1000, 1000)
    extraction: Final = range(_HELD_OUT + 128 * 1000, _HELD_OUT + 158 * 1000, 1000)
    training: Final = range(_TRAINING + 64 * 1000, _TRAINING + 3264 * 1000, 1000)
