"""What chance and the blind play is what the environment does."""

import numpy as np
import pytest

import envs
from envs.spots import first_spot
from opcd_agents.errors import UsageError
from opcd_agents.types import Split, Task


@pytest.mark.parametrize("spec", ["operator:3#4", "frozen-lake:", "sokoban:6"])
def test_a_spot_and_its_environment_agree(spec: str) -> None:
    rng = np.random.default_rng(0)
    ends = set()
    for task in envs.tasks(spec)[:60]:
        env, spot = envs.make_env(task), first_spot(task)
        env.reset(options={"task": task})
        over = False
        while not over:
            command = str(rng.choice(spot.commands()))
            _, _, terminated, truncated, info = env.step(command)
            spot = spot.after_blind(command)
            assert spot.won == info["won"]
            assert (spot.won or spot.lost or truncated) == (terminated or truncated) or "operator" in spec
            over = terminated or truncated
            ends.add((info["won"], info["lost"]))
    assert len(ends) > 1


@pytest.mark.usefixtures("game_cache")
def test_a_house_spot_and_its_game_agree(house: list[Task]) -> None:
    rng = np.random.default_rng(1)
    for task in house[::7]:
        env, spot = envs.make_env(task), first_spot(task)
        _, info = env.reset(options={"task": task})
        over = False
        while not over:
            assert set(spot.commands()) == set(info["admissible_commands"])
            command = str(rng.choice(info["admissible_commands"]))
            _, _, terminated, truncated, info = env.step(command)
            spot = spot.after(command)
            assert spot.won == info["won"] == terminated
            over = terminated or truncated


def test_a_task_of_an_unknown_world() -> None:
    with pytest.raises(UsageError, match="opcd/Moon-v0"):
        first_spot(Task("opcd/Moon-v0", {}, 0, Split.TEST, "moon", "f", None, 3))
