"""Reads the state of a house out of the memory of its game: the truth, whatever the game printed.

Knows which objects a plan has and how Inform 7 keeps them; knows no engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from envs.zmemory import ObjectTree
from opcd_agents.errors import EngineError
from opcd_agents.pocket.houses import HELD, HousePlan, HouseState

if TYPE_CHECKING:
    from collections.abc import Sequence

# Inform numbers its standard attributes in alphabetical order; `HouseReader.of` checks that it did.
_CONTAINER, _DOOR, _OPEN, _OPENABLE = 4, 5, 13, 14


@dataclass(frozen=True)
class HouseReader:
    """Reads `HouseState`s of one plan. Each mapping is object number -> name.

    Attributes:
        plan: The house.
        tree: Where the story keeps its objects.
        places: Rooms, containers and the player (as `HELD`).
        things: What can be carried.
        openable: Doors and containers.
    """

    plan: HousePlan
    tree: ObjectTree
    places: dict[int, str]
    things: dict[int, str]
    openable: dict[int, str]

    @classmethod
    def of(cls, plan: HousePlan, start: str, story: bytes, memory: Sequence[int]) -> HouseReader:
        """Find the plan's objects in a story file, and check them against the memory at the start.

        Raises:
            EngineError: The game is not the game of this plan.
        """
        tree = ObjectTree.of(story)
        try:
            places = {tree.named[f"-= {room} =-"]: room for room in plan.rooms}
            boxes = {tree.named[name]: name for name in plan.containers}
            doors = {tree.named[name]: name for name in plan.doors}
            things = {tree.named[name]: name for name in plan.things}
            places |= boxes | {tree.named["yourself"]: HELD}
        except KeyError as missing:
            raise EngineError(f"the game has no object named {missing}; compile it again") from None
        reader = cls(plan, tree, places, things, boxes | doors)
        reader._check(plan.start(start), memory, boxes, doors)
        return reader

    def state(self, memory: Sequence[int]) -> HouseState:
        """The state that `memory` holds.

        Raises:
            EngineError: The player or a thing is nowhere in the house.
        """
        tree = self.tree
        numbers = {name: number for number, name in self.places.items()}
        try:
            room = self.places[tree.parent(memory, numbers[HELD])]
        except KeyError:
            raise EngineError("the player is in no room of the house") from None
        contents = {
            place: tuple(self.things[n] for n in tree.children(memory, numbers[place]) if n in self.things)
            for place in (*self.plan.rooms, *self.plan.containers, HELD)
        }
        if sum(map(len, contents.values())) != len(self.things):
            raise EngineError("a thing is nowhere in the house")
        is_open = frozenset(n for k, n in self.openable.items() if tree.has(memory, k, _OPEN))
        return HouseState(self.plan, room, is_open, contents)

    def _check(
        self,
        wanted: HouseState,
        memory: Sequence[int],
        boxes: dict[int, str],
        doors: dict[int, str],
    ) -> None:
        def having(attribute: int) -> set[int]:
            every = range(1, self.tree.count + 1)
            return {n for n in every if self.tree.has(memory, n, attribute)}

        kinds = (having(_CONTAINER), having(_DOOR), having(_OPENABLE))
        state = self.state(memory)
        placed = {c: self.places.get(self.tree.parent(memory, k)) for k, c in boxes.items()}
        same = (
            kinds == (set(boxes), set(doors), {*boxes, *doors})
            and placed == self.plan.containers
            and (state.room, state.open) == (wanted.room, wanted.open)
            and all(state.place_of(t) == wanted.place_of(t) for t in self.plan.things)
        )
        if not same:
            raise EngineError("the game does not begin as its plan says; compile it again")
