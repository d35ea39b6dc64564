"""How the pocket models think: a chain of one-key look-ups, then a command.

A *fact* is two names: a thing or container and where it is ("coin crate"), or a room and its neighbour on the way to
the top room of the house ("Cellar Hall"; "Hall top"). A thought names the player's room, recites the path from the goal
upwards until it meets that room ("In Hall: coin crate Cellar Hall here."), then names the next step ("Cellar south.")
and the command. Each name follows from the one before it by one fact, which is what so small a model can look up.
`expert_reply` recites what a `Facts` source says; `Imagination` is a source that makes facts up.
Knows houses, not tokens; the form of notes is the one that `experience_bank` renders.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from opcd_agents.maps import hang
from opcd_agents.pocket.houses import HELD, Goal, HousePlan, HouseState
from opcd_agents.pocket.names import CONTAINERS, ROOMS


class Facts(Protocol):
    """Where the facts of a thought come from."""

    def place(self, name: str) -> str:
        """The container or room that `name` is in."""
        ...

    def above(self, room: str) -> str | None:
        """The neighbour of `room` nearer the top; None for the top room."""
        ...


@dataclass(frozen=True)
class Notes:
    """True facts, as notes state them. `up` maps each room to its neighbour nearer the top."""

    places: dict[str, str]
    up: dict[str, str | None]

    def place(self, name: str) -> str:
        """The container or room that `name` is in."""
        return self.places[name]

    def above(self, room: str) -> str | None:
        """The neighbour of `room` nearer the top."""
        return self.up[room]

    def sentences(self) -> list[str]:
        """The facts as sentences, without an order that means anything."""
        return [f"{name} {place or 'top'}." for name, place in (self.places | self.up).items()]


def notes_of(plan: HousePlan) -> Notes:
    """All facts of `plan`, its rooms hung from the most central one."""
    return Notes(
        {**plan.containers, **plan.things}, hang({r: [w.room for w in ways] for r, ways in plan.exits.items()})
    )


def expert_reply(state: HouseState, goal: Goal, facts: Facts) -> str:
    """The reply for this state: a thought that recites `facts`, then "> command".

    Args:
        state: Where the player is and what is visible. Hidden contents are not looked at.
        goal: What is to be done.
        facts: True notes, or `Imagination`.

    Returns:
        The text of the reply.
    """
    thing, opening = goal.thing, f"In {state.room}:"
    if thing in state.contents[HELD]:
        assert goal.container is not None
        return f"{opening} {thing} held. {_use(state, goal.container, facts, f'put {thing} into {goal.container}')}"
    if thing in state.reachable():
        return f"{opening} {thing} here.\n> take {thing}"
    place = facts.place(thing)
    if place in ROOMS:
        return f"{opening} {thing} {_climb(state, place, facts)}"
    return f"{opening} {thing} {_use(state, place, facts, f'take {thing}')}"


def _use(state: HouseState, container: str, facts: Facts, command: str) -> str:
    room = facts.place(container)
    if room != state.room:
        return f"{container} {_climb(state, room, facts)}"
    if container in state.open:
        return f"{container} {room} here. {container} open.\n> {command}"
    return f"{container} {room} here. {container} closed.\n> open {container}"


def _climb(state: HouseState, room: str, facts: Facts) -> str:
    path = [room]
    while path[-1] != state.room:
        above = facts.above(path[-1])
        if above is None:
            below = facts.above(state.room) or state.plan.exits[state.room][0].room
            return f"{' '.join(path)} top. {state.room} {_go(state, below)}"
        path.append(above)
    below = path[-2] if len(path) > 1 else state.plan.exits[state.room][0].room
    return f"{' '.join(path)} here. {_go(state, below)}"


def _go(state: HouseState, room: str) -> str:
    way = next(w for w in state.plan.exits[state.room] if w.room == room)
    if way.door is None:
        return f"{room} {way.direction}.\n> go {way.direction}"
    if way.door in state.open:
        return f"{room} {way.direction} by open {way.door}.\n> go {way.direction}"
    return f"{room} {way.direction} by closed {way.door}.\n> open {way.door}"


class Imagination:
    """Facts made up so that they fit what is in view: what a model says that has no notes.

    One instance serves one reply. It always leads to one of the exits or containers in view, so that its
    thoughts have the form of true ones.
    """

    def __init__(self, state: HouseState, goal: Goal, rng: np.random.Generator) -> None:
        self._rng = rng
        self._room = state.room
        self._next = str(rng.choice([way.room for way in state.plan.exits[state.room]]))
        self._off = rng.random() < 0.35
        self._links = int(rng.choice(3, p=[0.35, 0.4, 0.25]))
        self._shut = [c for c in state.visible_containers() if c not in state.open]
        held = goal.thing in state.contents[HELD]
        self._search = not held and bool(self._shut) and rng.random() < 0.4
        self._arrived = held and goal.container in state.visible_containers()
        self._goal = goal

    def place(self, name: str) -> str:
        """A made-up place for a thing or a container."""
        if name == self._goal.thing:
            if self._search:
                return str(self._rng.choice(self._shut))
            return str(self._rng.choice(CONTAINERS)) if self._rng.random() < 0.75 else self._far_room()
        if self._search or self._arrived:
            return self._room
        return self._far_room()

    def above(self, room: str) -> str | None:
        """A made-up neighbour: a few invented links, then the exit this reply settled on."""
        if room == self._room:
            return self._next
        if room == self._next and not self._off:
            return self._room
        if self._links > 0:
            self._links -= 1
            return self._invented()
        return None if self._off else self._next

    def _far_room(self) -> str:
        return self._next if self._links == 0 and not self._off else self._invented()

    def _invented(self) -> str:
        while (room := str(self._rng.choice(ROOMS))) in (self._room, self._next):
            pass
        return room
