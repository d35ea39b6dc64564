"""The Sokoban rooms with one box that TextArena 0.7.4 makes of a seed, made again without it.

Its generator comes from gym-sokoban: a random walk carves the floor, then a search that pulls the box away from its goal
keeps the position it likes best. To meet the same rooms, this module draws the same numbers in the same order
and keeps two oddities (marked below). Knows no rules of play.
"""

from __future__ import annotations

from random import Random
from typing import Final

import numpy as np

from envs.grid import WAYS, Cell
from opcd_agents.errors import UsageError

_SIZE: Final = 6
_STEPS: Final = 20  # int(1.7 * (6 + 6))
_TURN: Final = 0.35
_TRIES: Final = 1000
_RETRIES: Final = 50
_DEEPEST: Final = 300
_DIRECTIONS: Final = ((1, 0), (0, 1), (-1, 0), (0, -1))
# Cells around the walker that become floor, as offsets.
_BRUSHES: Final[tuple[tuple[Cell, ...], ...]] = (
    ((0, -1), (0, 0), (0, 1)),
    ((-1, 0), (0, 0), (1, 0)),
    ((0, -1), (0, 0), (1, 0)),
    ((0, -1), (0, 0), (1, -1), (1, 0)),
    ((0, 0), (0, 1), (1, 0)),
)


def paper_room(seed: int) -> list[str]:
    """The room of a seed, as rows that `envs.sokoban.Room.parse` reads.

    Raises:
        UsageError: No room came of it; does not happen with the paper's seeds.
    """
    for attempt in range(_RETRIES):
        walk, places = Random(seed + attempt), np.random.default_rng(seed + attempt)
        for _ in range(_TRIES):
            rows = _room(walk, places)
            if rows is not None:
                return rows
    raise UsageError(f"no Sokoban room comes of the seed {seed}")


def _room(walk: Random, places: np.random.Generator) -> list[str] | None:
    floor = _floor(walk)
    if len(floor) <= 2:
        return None
    player = _drawn(floor, places)
    goal = _drawn([cell for cell in floor if cell != player], places)
    search = _Pulling(frozenset(floor), goal)
    search.visit(player, goal, pulled=False, pulls=0, depth=_DEEPEST)
    if search.best is None or _stuck(search.best[1], search.floor):
        return None
    marks = {goal: "O", search.best[0]: "P", search.best[1]: "X"}
    cells = range(_SIZE)
    return ["".join(marks.get((r, c), "_" if (r, c) in search.floor else "#") for c in cells) for r in cells]


def _floor(rng: Random) -> list[Cell]:
    """A random walk with a brush; cells in reading order."""
    direction = rng.sample(_DIRECTIONS, 1)[0]
    row, column = rng.randint(1, _SIZE - 1), rng.randint(1, _SIZE - 1)
    painted: set[Cell] = set()
    for _ in range(_STEPS):
        if rng.random() < _TURN:
            direction = rng.sample(_DIRECTIONS, 1)[0]
        row = min(max(row + direction[0], 1), _SIZE - 2)
        column = min(max(column + direction[1], 1), _SIZE - 2)
        painted |= {(row + r, column + c) for r, c in rng.sample(_BRUSHES, 1)[0]}
    return sorted((r, c) for r, c in painted if 0 < r < _SIZE - 1 and 0 < c < _SIZE - 1)


def _drawn(cells: list[Cell], rng: np.random.Generator) -> Cell:
    return cells[int(rng.integers(len(cells)))]


class _Pulling:
    """Depth-first search backwards in time: a player who leaves a box behind pulls it along.

    A position's worth is pulls times the box's distance from the goal. A position is visited once, by
    whichever way comes first; a box that was pulled back to where it began counts as another position (an oddity).
    """

    def __init__(self, floor: frozenset[Cell], goal: Cell) -> None:
        self.floor = floor
        self.best: tuple[Cell, Cell] | None = None
        self._goal = goal
        self._worth = 0
        self._seen: set[tuple[Cell, Cell, bool]] = set()

    def visit(self, player: Cell, box: Cell, *, pulled: bool, pulls: int, depth: int) -> None:
        """Look at a position and all that are reached from it."""
        here = (player, box, pulled)
        if depth <= 1 or here in self._seen:
            return
        self._seen.add(here)
        away = abs(box[0] - self._goal[0]) + abs(box[1] - self._goal[1])
        if self._goal not in (player, box) and pulls * away > self._worth:
            self.best, self._worth = (player, box), pulls * away
        for down, right in WAYS.values():
            there = (player[0] + down, player[1] + right)
            if there not in self.floor or there == box:
                continue
            if (player[0] - down, player[1] - right) == box:
                self.visit(there, player, pulled=True, pulls=pulls + 1, depth=depth - 1)
            else:
                self.visit(there, box, pulled=pulled, pulls=pulls, depth=depth - 1)


def _stuck(box: Cell, floor: frozenset[Cell]) -> bool:
    """Whether the generator takes a box for stuck: three walls, or two whose numbers differ by 1 or 3.

    That also calls a corridor stuck, and overlooks two kinds of corner (an oddity).
    """
    walls = [i for i, (r, c) in enumerate(WAYS.values()) if (box[0] + r, box[1] + c) not in floor]
    return len(walls) > 2 or (len(walls) == 2 and walls[1] - walls[0] in (1, 3))
