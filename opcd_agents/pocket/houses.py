"""A house: one fixed world of rooms, doors, containers and things, its rules and its words.

`HousePlan` is the world, `HouseState` a moment in it. `describe` and `apply` restate in plain Python what
the compiled TextWorld game of the same plan prints and does (a contract test walks both side by side), so
that the pocket curriculum can play millions of turns and `envs` can search for shortest solutions.
Knows nothing of TextWorld, tokens or models.
"""

import hashlib
import json
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import astuple, dataclass, field, replace
from typing import Final

import numpy as np

from opcd_agents.pocket.names import CONTAINERS, DIRECTIONS, DOORS, OPPOSITE, ROOMS, THINGS

HELD: Final = "*held*"
_STEP: Final = {"north": (0, 1), "south": (0, -1), "east": (1, 0), "west": (-1, 0)}


@dataclass(frozen=True)
class Exit:
    """A way from one room to the next; `door` is None where nothing closes it."""

    direction: str
    room: str
    door: str | None = None


@dataclass(frozen=True)
class HousePlan:
    """The world as built. Mappings keep insertion order: it is the order in which the game lists things.

    Attributes:
        exits: room -> its exits; every exit has its counterpart in the other room.
        containers: container -> the room it stands in.
        things: thing -> the room (floor) or container it lies in at the start.
        open_at_start: the doors and containers that stand open.
    """

    exits: dict[str, tuple[Exit, ...]]
    containers: dict[str, str]
    things: dict[str, str]
    open_at_start: frozenset[str] = field(default_factory=frozenset[str])

    @property
    def rooms(self) -> tuple[str, ...]:
        """Room names in order."""
        return tuple(self.exits)

    @property
    def doors(self) -> tuple[str, ...]:
        """Door names in order, each once."""
        found = (way.door for ways in self.exits.values() for way in ways if way.door)
        return tuple(dict.fromkeys(found))

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) of the canonical plan."""
        plan = {"exits": {r: [astuple(w) for w in ways] for r, ways in self.exits.items()}}
        plan |= {"containers": self.containers, "things": self.things, "open": sorted(self.open_at_start)}
        return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()

    @property
    def held_out(self) -> bool:
        """Whether this house is kept out of every curriculum: one in sixteen is, and only those are played."""
        return self.fingerprint[0] == "0"

    def start(self, room: str) -> "HouseState":
        """The state in which the player stands in `room` and nothing has been touched."""
        contents: dict[str, tuple[str, ...]] = dict.fromkeys((*self.rooms, *self.containers, HELD), ())
        for thing, place in self.things.items():
            contents[place] = (*contents[place], thing)
        return HouseState(self, room, self.open_at_start, contents)


@dataclass(frozen=True)
class Goal:
    """What is to be done: hold `thing`, or have it inside `container`."""

    thing: str
    container: str | None = None

    def __str__(self) -> str:
        if self.container is None:
            return f"Find the {self.thing} and take it."
        return f"Put the {self.thing} into the {self.container}."


@dataclass(frozen=True)
class HouseState:
    """A moment in a house. `contents` maps each place to its things, newest first after a move."""

    plan: HousePlan
    room: str
    open: frozenset[str]
    contents: dict[str, tuple[str, ...]]

    def place_of(self, thing: str) -> str:
        """Where `thing` is: a room, a container, or `HELD`."""
        return next(place for place, things in self.contents.items() if thing in things)

    def achieves(self, goal: Goal) -> bool:
        """Whether the goal holds in this state."""
        return self.place_of(goal.thing) == (goal.container or HELD)

    def visible_containers(self) -> list[str]:
        """Containers in the room, in the order the game lists them."""
        return [name for name, room in self.plan.containers.items() if room == self.room]

    def reachable(self) -> list[str]:
        """Things that can be taken here: on the floor or in an open container."""
        places = [self.room, *(c for c in self.visible_containers() if c in self.open)]
        return [thing for place in places for thing in self.contents[place]]

    def describe(self) -> str:
        """The room as the game prints it, title first."""
        parts = [f"Exits: {', '.join(map(self._exit_text, self.plan.exits[self.room]))}."]
        parts += [self._container_text(name) for name in self.visible_containers()]
        if self.contents[HELD]:
            parts.append(f"You carry {_listing(self.contents[HELD])}.")
        lines = [f"-= {self.room} =-", " ".join(parts)]
        if self.contents[self.room]:
            lines.append(f"There is {_listing(self.contents[self.room])} on the floor.")
        return "\n".join(lines)

    def _exit_text(self, way: Exit) -> str:
        by = f" by {self._mode(way.door)} {way.door}" if way.door else ""
        return f"{way.room} {way.direction}{by}"

    def _container_text(self, name: str) -> str:
        inside = self.contents[name] if name in self.open else ()
        article = "an" if name in self.open else "a"
        return f"There is {article} {self._mode(name)} {name}" + (f" with {_listing(inside)}." if inside else ".")

    def _mode(self, name: str) -> str:
        return "open" if name in self.open else "closed"

    def commands(self) -> list[str]:
        """Every command that changes this state, in a fixed order."""
        ways = self.plan.exits[self.room]
        here = self.visible_containers()
        doors = [way.door for way in ways if way.door]
        found = [f"go {w.direction}" for w in ways if w.door is None or w.door in self.open]
        found += [f"{'close' if x in self.open else 'open'} {x}" for x in (*doors, *here)]
        found += [f"take {thing}" for thing in self.reachable()]
        found += [f"drop {thing}" for thing in self.contents[HELD]]
        found += [f"put {t} into {c}" for t in self.contents[HELD] for c in here if c in self.open]
        return found

    def apply(self, command: str) -> tuple["HouseState", str]:
        """Obey one of `commands()`.

        Args:
            command: The command, spelt as `commands()` spells it.

        Returns:
            The next state and the game's sentence about it ("" for a move, where the room speaks).

        Raises:
            ValueError: The command is not one of `commands()`.
        """
        if command not in self.commands():
            raise ValueError(f"wanted one of {self.commands()}, got {command!r}")
        verb, noun, *rest = command.split()
        if verb == "go":
            way = next(w for w in self.plan.exits[self.room] if w.direction == noun)
            return replace(self, room=way.room), ""
        if verb == "open":
            return replace(self, open=self.open | {noun}), self._opening_text(noun)
        if verb == "close":
            return replace(self, open=self.open - {noun}), f"You close {self._the(noun)}."
        target = {"take": HELD, "drop": self.room, "put": rest[-1] if rest else ""}[verb]
        return self._moved(noun, target), self._moving_text(verb, noun, target)

    def _the(self, name: str) -> str:
        return name if name in self.plan.doors else f"the {name}"

    def _opening_text(self, name: str) -> str:
        inside = self.contents.get(name, ())
        return f"You open {self._the(name)}" + (f", revealing {_listing(inside)}." if inside else ".")

    def _moving_text(self, verb: str, thing: str, target: str) -> str:
        if verb == "put":
            return f"You put the {thing} into the {target}."
        if verb == "drop":
            return f"You drop the {thing} on the ground."
        source = self.place_of(thing)
        if source == self.room:
            return f"You pick up the {thing} from the ground."
        return f"You take the {thing} from the {source}."

    def _moved(self, thing: str, target: str) -> "HouseState":
        contents = {place: tuple(t for t in things if t != thing) for place, things in self.contents.items()}
        contents[target] = (thing, *contents[target])
        return replace(self, contents=contents)


def _listing(things: tuple[str, ...]) -> str:
    named = [f"a {thing}" for thing in things]
    return named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"


def solve(start: HouseState, goal: Goal) -> list[str]:
    """A shortest solution, by breadth-first search over the commands that can matter for `goal`.

    Args:
        start: Where the player begins.
        goal: What must hold at the end.

    Returns:
        The commands; empty where the goal already holds.

    Raises:
        ValueError: The goal cannot be reached.
    """
    queue: deque[tuple[HouseState, tuple[str, ...]]] = deque([(start, ())])
    seen = {_key(start)}
    while queue:
        state, path = queue.popleft()
        if state.achieves(goal):
            return list(path)
        for command in _useful(state, goal):
            following, _ = state.apply(command)
            if (key := _key(following)) not in seen:
                seen.add(key)
                queue.append((following, (*path, command)))
    raise ValueError(f"no way to {goal!s:.60} from {start.room}")


def _key(state: HouseState) -> tuple[object, ...]:
    return (state.room, state.open, tuple(sorted(state.contents.items())))


def _useful(state: HouseState, goal: Goal) -> Iterator[str]:
    wanted = {goal.container, state.place_of(goal.thing), *state.plan.doors}
    for command in state.commands():
        verb, noun, *rest = command.split()
        opens = verb == "open" and noun in wanted
        carries = verb in ("take", "put") and noun == goal.thing and (not rest or rest[-1] == goal.container)
        if verb == "go" or opens or carries:
            yield command


def sample_house(
    rng: np.random.Generator,
    *,
    held_out: bool,
    rooms: int = 8,
    containers: int = 4,
    things: int = 8,
    favoured: Collection[str] = (),
) -> HousePlan:
    """Draw a house from one side of the split between play and curriculum.

    Args:
        rng: Source of all chance.
        held_out: Whether it is for play (True) or for a curriculum.
        rooms: How many rooms, 2 to 32.
        containers: How many containers, at most 16.
        things: How many things, at most 32.
        favoured: Names to use before any other.

    Returns:
        The plan. The same generator state gives the same plan.
    """
    while True:
        plan = _draw_house(rng, rooms, containers, things, favoured)
        if plan.held_out == held_out:
            return plan


def _draw_house(
    rng: np.random.Generator, rooms: int, containers: int, things: int, favoured: Collection[str]
) -> HousePlan:
    """A tree of rooms on a grid, one door, containers mostly closed, things mostly inside them."""
    names = _draw(rng, ROOMS, rooms, favoured)
    exits = _grow_tree(rng, names)
    boxes = _draw(rng, CONTAINERS, containers, favoured)
    place_of = dict(zip(boxes, _spread(rng, names, containers), strict=True))
    lying: dict[str, str] = {}
    for thing in _draw(rng, THINGS, things, favoured):
        inside = boxes and rng.random() < 0.75
        lying[thing] = str(rng.choice(boxes if inside else names))
    return HousePlan(exits, place_of, lying, frozenset(box for box in boxes if rng.random() < 0.15))


def _draw(rng: np.random.Generator, pool: tuple[str, ...], count: int, favoured: Collection[str]) -> list[str]:
    shuffled = [str(name) for name in rng.permutation(pool)]
    return sorted(shuffled, key=lambda name: name not in favoured)[:count]


def _spread(rng: np.random.Generator, names: list[str], count: int) -> list[str]:
    laps = -(-count // len(names))
    return [str(n) for _ in range(laps) for n in rng.permutation(names)][:count]


def _grow_tree(rng: np.random.Generator, names: list[str]) -> dict[str, tuple[Exit, ...]]:
    at = {(0, 0): names[0]}
    edges: list[tuple[str, str, str]] = []
    for name in names[1:]:
        options = [
            (where, room, way)
            for spot, room in at.items()
            for way in DIRECTIONS
            if (where := (spot[0] + _STEP[way][0], spot[1] + _STEP[way][1])) not in at
        ]
        where, room, way = options[int(rng.integers(len(options)))]
        at[where] = name
        edges.append((room, way, name))
    barred = int(rng.integers(len(edges))) if len(edges) > 2 else -1
    exits: dict[str, tuple[Exit, ...]] = dict.fromkeys(names, ())
    for index, (room, way, name) in enumerate(edges):
        door = str(rng.choice(DOORS)) if index == barred else None
        exits[room] = (*exits[room], Exit(way, name, door))
        exits[name] = (*exits[name], Exit(OPPOSITE[way], room, door))
    return exits
