"""What can be played, by name: the families, the tasks of a spec such as `house:7`, an environment for a task.

The ids are registered with Gymnasium as callables, never as "module:Class" strings: another package named
`envs` must not be imported in our place. Knows how each family writes its specs.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, cast

import gymnasium

from envs.house_data import HOUSE_ID, house_tasks
from envs.operator import OPERATOR_ID, OperatorEnv, operator_tasks
from envs.text_env import TurnLimit
from opcd_agents.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from opcd_agents.types import Task

FAMILIES: Final = {
    "house": "a TextWorld house of 8 rooms, played in the z-machine; tasks: house:SEED, such as house:7",
    "operator": "a made-up operator on digits, never explained; tasks: operator:PsQ, such as operator:3#4",
}
_EXAMPLES: Final = {"house": "house:7", "operator": "operator:3#4"}
_OPERATOR: Final = re.compile(r"([1-9])([#@~%])([1-9])")
_SEED: Final = re.compile(r"[0-9]{1,9}")


def make_house(**kwargs: Any) -> TurnLimit:
    """A house within its task's turn limit; see `envs.house.HouseEnv` for the arguments."""
    from envs.house import HouseEnv  # opens the way to the engine: only for who plays

    return TurnLimit(HouseEnv(**kwargs))


def make_operator(**kwargs: Any) -> TurnLimit:
    """A question within its attempts; see `envs.operator.OperatorEnv` for the arguments."""
    return TurnLimit(OperatorEnv(**kwargs))


_MAKERS: Final[dict[str, Callable[..., TurnLimit]]] = {
    HOUSE_ID: make_house,
    OPERATOR_ID: make_operator,
}


def register() -> None:
    """Tell Gymnasium of our ids; once is enough, twice does no harm."""
    for env_id, maker in _MAKERS.items():
        if env_id not in gymnasium.registry:
            cast("Any", gymnasium).register(env_id, maker)


def make_env(task: Task) -> TurnLimit:
    """An environment for `task`, truncated after `task.limit` turns.

    Raises:
        UnknownNameError: No environment of ours has the task's id.
    """
    maker = _MAKERS.get(task.env_id)
    if maker is None:
        raise UnknownNameError("environment", task.env_id, _MAKERS)
    return maker(**task.kwargs)


def tasks(spec: str) -> list[Task]:
    """Every task of a spec.

    Args:
        spec: `house:SEED` or `operator:PsQ` (digits p and q, a symbol s of # @ ~ %).

    Raises:
        UnknownNameError: There is no such family.
        UsageError: The part after the colon is not of the family's form.
    """
    family, _, rest = spec.partition(":")
    if family not in FAMILIES:
        raise UnknownNameError("family of tasks", family, FAMILIES)
    if family == "house" and _SEED.fullmatch(rest):
        return house_tasks(int(rest))
    if family == "operator" and (parts := _OPERATOR.fullmatch(rest)):
        return operator_tasks(parts[2], int(parts[1]), int(parts[3]))
    raise UsageError(f"wanted tasks such as {_EXAMPLES[family]!r}, got {spec!r:.60}")
