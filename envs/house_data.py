"""The houses and their tasks, as data: from a seed to a plan, and from a plan to every task in it.

Knows no engine: what is here is decided before any game is compiled.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import count
from typing import Any

import numpy as np

from envs.splits import fingerprint, split_of
from opcd_agents.errors import UsageError
from opcd_agents.pocket.houses import Exit, Goal, HousePlan, sample_house, solve
from opcd_agents.types import Task

HOUSE_ID = "opcd/House-v0"
SLACK = 2
_SHORTEST, _LONGEST = 3, 8  # shorter ones chance wins, longer ones only take longer to play
_FEWEST = 20
_MOST_HOUSES = 10**9


@lru_cache(maxsize=256)
def house_plan(seed: int) -> HousePlan:
    """The house of a seed: the first one drawn in which enough things are worth finding.

    Raises:
        UsageError: The seed is negative or too long to be one.
    """
    if not 0 <= seed < _MOST_HOUSES:
        raise UsageError(f"wanted a house seed from 0 to {_MOST_HOUSES - 1}, got {str(seed)[:60]}")
    drawn = (sample_house(np.random.default_rng([seed, attempt]), held_out=True) for attempt in count())
    return next(plan for plan in drawn if len(_worthy(plan, _finds(plan))) >= _FEWEST)


def plan_data(plan: HousePlan) -> dict[str, Any]:
    """`plan` as JSON values; lists of pairs, because the order of its mappings matters."""
    return {
        "exits": [[r, [[w.direction, w.room, w.door] for w in ws]] for r, ws in plan.exits.items()],
        "containers": [list(pair) for pair in plan.containers.items()],
        "things": [list(pair) for pair in plan.things.items()],
        "open": sorted(plan.open_at_start),
    }


def plan_from_data(data: dict[str, Any]) -> HousePlan:
    """The inverse of `plan_data`."""
    exits = {room: tuple(Exit(*way) for way in ways) for room, ways in data["exits"]}
    open_ = frozenset[str](data["open"])
    return HousePlan(exits, dict(data["containers"]), dict(data["things"]), open_)


def house_task(house: int, start: str, goal: Goal) -> Task:
    """One task: the house of seed `house`, the room the player starts in, what is to be done.

    Raises:
        UsageError: The house has no such room, thing or container, or the goal holds already.
    """
    plan = house_plan(house)
    named = goal.thing in plan.things and (goal.container or "") in ("", *plan.containers)
    if start not in plan.rooms or not named or plan.start(start).achieves(goal):
        raise UsageError(f"house {house} has no task {goal!s:.80} from {start!r:.40}")
    return _task(house, start, goal, len(solve(plan.start(start), goal)))


def house_tasks(seed: int) -> list[Task]:
    """Every worthwhile task of a house: find each thing from each room, and as many of "put X into Y".

    Tasks that take fewer than three turns or more than eight are left out. The order is fixed.
    """
    return list(_house_tasks(seed))


def goal_of(task: Task) -> Goal:
    """What is to be done in a task of a house."""
    return Goal(task.kwargs["goal"]["thing"], task.kwargs["goal"]["container"])


@lru_cache(maxsize=64)
def _house_tasks(seed: int) -> tuple[Task, ...]:
    plan = house_plan(seed)
    finds = _worthy(plan, _finds(plan))
    puts = [(room, Goal(t, c)) for room in plan.rooms for t in plan.things for c in plan.containers]
    order = np.random.default_rng([seed, 1 << 20]).permutation(len(puts))
    chosen = _worthy(plan, [puts[i] for i in order], len(finds))
    return tuple(_task(seed, start, goal, steps) for start, goal, steps in (*finds, *chosen))


def _finds(plan: HousePlan) -> list[tuple[str, Goal]]:
    return [(room, Goal(thing)) for room in plan.rooms for thing in plan.things]


def _worthy(plan: HousePlan, wanted: list[tuple[str, Goal]], most: int | None = None) -> list[tuple[str, Goal, int]]:
    found: list[tuple[str, Goal, int]] = []
    for start, goal in wanted:
        steps = len(solve(plan.start(start), goal))
        if _SHORTEST <= steps <= _LONGEST:
            found.append((start, goal, steps))
        if len(found) == most:
            break
    return found


def _task(house: int, start: str, goal: Goal, steps: int) -> Task:
    aim = {"thing": goal.thing, "container": goal.container}
    print_ = fingerprint(["house", plan_data(house_plan(house)), start, aim])
    kwargs = {"house": house, "start": start, "goal": aim}
    split = split_of(print_)
    return Task(HOUSE_ID, kwargs, 0, split, f"house/{house}", print_, steps, steps + SLACK)
