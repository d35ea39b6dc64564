"""Moments of tasks whose whole world is known here, for players that need no engine: chance and the blind.

A contract test holds each equal to the environment it stands for. Knows no search.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, final

from envs.frozen_lake import LAKE_ID, Lake
from envs.grid import WAYS, Board, shortest
from envs.house_data import HOUSE_ID, goal_of, house_plan
from envs.operator import DIGITS, OPERATOR_ID
from envs.sokoban import SOKOBAN_ID, Room
from opcd_agents.errors import UsageError
from opcd_agents.pocket.houses import Goal, HouseState, solve
from opcd_agents.pocket.names import DIRECTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from opcd_agents.types import Task


class Spot(Protocol):
    """A moment of a task. Two spots of one scope with the same `key` have the same future."""

    @property
    def key(self) -> Hashable:
        """What tells two of them apart."""
        ...

    @property
    def won(self) -> bool:
        """Whether the task is solved."""
        ...

    @property
    def lost(self) -> bool:
        """Whether the episode is over and the task is not solved."""
        ...

    def commands(self) -> Sequence[str]:
        """What chance chooses from."""
        ...

    def after(self, command: str) -> Spot:
        """The spot after one of `commands`."""
        ...

    def blind_commands(self) -> Sequence[str]:
        """What the blind may say in any task of the scope; names of the objective stand in braces."""
        ...

    def after_blind(self, said: str) -> Spot:
        """The spot after one of `blind_commands`, which here may do nothing but cost a turn."""
        ...

    def missing(self) -> int | None:
        """Fewest turns to win from here; None if it cannot be won."""
        ...


@final
@dataclass(frozen=True)
class HouseSpot:
    """A moment in a house, to a player that handles no thing but the goal's."""

    goal: Goal
    state: HouseState

    @classmethod
    def of(cls, task: Task) -> HouseSpot:
        """Where the task begins."""
        return cls(goal_of(task), house_plan(task.kwargs["house"]).start(task.kwargs["start"]))

    @property
    def won(self) -> bool:
        """Whether the goal is achieved."""
        return self.state.achieves(self.goal)

    @property
    def lost(self) -> bool:
        """Never."""
        return False

    @property
    def key(self) -> Hashable:
        """All that matters."""
        return (self.goal, self.state.room, self.state.open, self.state.place_of(self.goal.thing))

    def commands(self) -> Sequence[str]:
        """See `Spot`."""
        return self.state.commands()

    def after(self, command: str) -> HouseSpot:
        """See `Spot`."""
        return HouseSpot(self.goal, self.state.apply(command)[0])

    def blind_commands(self) -> Sequence[str]:
        """See `Spot`."""
        plan = self.state.plan
        named = [f"open {name}" for name in (*plan.doors, *plan.containers)]
        return [*(f"go {way}" for way in DIRECTIONS), *named, "take {thing}", "put {thing} into {container}"]

    def after_blind(self, said: str) -> HouseSpot:
        """See `Spot`."""
        command = said.format(thing=self.goal.thing, container=self.goal.container)
        return self.after(command) if command in self.state.commands() else self

    def missing(self) -> int | None:
        """See `Spot`."""
        return len(solve(self.state, self.goal))


@final
@dataclass(frozen=True)
class GridSpot:
    """A moment of a game on a grid; a second blocked move in a row loses."""

    board: Board
    blocked: bool = False
    lost: bool = False

    @property
    def won(self) -> bool:
        """Whether the board is."""
        return self.board.won

    @property
    def key(self) -> Hashable:
        """The whole board: those of one scope differ in what never moves."""
        return (self.board, self.blocked, self.lost)

    def commands(self) -> Sequence[str]:
        """See `Spot`."""
        return tuple(WAYS)

    def after(self, command: str) -> GridSpot:
        """See `Spot`."""
        board = self.board.moved(command)
        if board is None:
            return GridSpot(self.board, blocked=True, lost=self.blocked)
        return GridSpot(board, lost=board.lost)

    def blind_commands(self) -> Sequence[str]:
        """See `Spot`."""
        return self.commands()

    def after_blind(self, said: str) -> GridSpot:
        """See `Spot`."""
        return self.after(said)

    def missing(self) -> int | None:
        """See `Spot`."""
        return shortest(self.board)


@final
@dataclass(frozen=True)
class DigitSpot:
    """A question whose answer is a digit."""

    right: str
    won: bool = False
    lost: bool = False

    @classmethod
    def of(cls, task: Task) -> DigitSpot:
        """The question of a task."""
        kwargs = task.kwargs
        return cls(str((kwargs["p"] * kwargs["a"] + kwargs["q"] * kwargs["b"]) % 10))

    @property
    def key(self) -> Hashable:
        """All there is."""
        return (self.right, self.won)

    def commands(self) -> Sequence[str]:
        """See `Spot`."""
        return DIGITS

    def after(self, command: str) -> DigitSpot:
        """See `Spot`."""
        return DigitSpot(self.right, command == self.right)

    def blind_commands(self) -> Sequence[str]:
        """See `Spot`."""
        return DIGITS

    def after_blind(self, said: str) -> DigitSpot:
        """See `Spot`."""
        return self.after(said)

    def missing(self) -> int | None:
        """See `Spot`."""
        return 1


_FIRST: Final[dict[str, Callable[[Task], Spot]]] = {
    HOUSE_ID: HouseSpot.of,
    OPERATOR_ID: DigitSpot.of,
    LAKE_ID: lambda task: GridSpot(Lake.parse(task.kwargs["rows"])),
    SOKOBAN_ID: lambda task: GridSpot(Room.parse(task.kwargs["rows"])),
}


def is_known(task: Task) -> bool:
    """Whether `first_spot` knows the world of a task."""
    return task.env_id in _FIRST


def first_spot(task: Task) -> Spot:
    """Where a task begins.

    Raises:
        UsageError: The world of such tasks is not known here.
    """
    if task.env_id not in _FIRST:
        raise UsageError(f"wanted a task whose world is known without playing it, got one of {task.env_id}")
    return _FIRST[task.env_id](task)
