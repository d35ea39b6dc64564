"""The compiled game and the simulated house are one and the same; solutions win in the real game."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import envs
from envs.engine import Engine, engine_of
from envs.game_store import game_path, is_whole
from envs.house import open_house
from envs.house_build import build_game
from envs.house_data import goal_of, house_plan
from envs.house_memory import HouseReader
from opcd_agents.errors import EngineError
from opcd_agents.pocket.houses import Exit, HousePlan, HouseState, solve
from opcd_agents.types import Split, Task

HOUSES = (0, 3, 11, 12)
LIKELY = {"go": 1.0, "open": 2.0, "close": 0.4, "take": 2.0, "drop": 1.0, "put": 2.0}


@pytest.fixture(scope="module")
def walked(house: list[Task]) -> list[Task]:
    """One task of each house."""
    tasks = [house[0], *(envs.tasks(f"house:{seed}")[-1] for seed in HOUSES[1:])]
    envs.prepare(tasks)
    return tasks


def draw(rng: np.random.Generator, commands: list[str]) -> str:
    weights = np.array([LIKELY[command.split()[0]] for command in commands])
    return str(rng.choice(commands, p=weights / weights.sum()))


def walk(task: Task, rng: np.random.Generator, turns: int) -> Counter[str]:
    """Walk game and simulation side by side; what was said, by its kind."""
    engine, reader = open_house(task)
    text, now = engine.start()
    state = house_plan(task.kwargs["house"]).start(task.kwargs["start"])
    assert text == state.describe()
    used: Counter[str] = Counter()
    for _ in range(turns):
        command = draw(rng, state.commands())
        state, said = state.apply(command)
        text, now = engine.play(now, command)
        assert text == (said or state.describe())
        assert engine.play(now, "look")[0] == state.describe()
        assert same(reader.state(now.memory), state)
        used[command.split()[0]] += 1
    return used


def same(left: HouseState, right: HouseState) -> bool:
    return (left.room, left.open, left.contents) == (right.room, right.open, right.contents)


def test_side_by_side(walked: list[Task]) -> None:
    used: Counter[str] = Counter()
    for number, task in enumerate(walked):
        for turn in range(3):
            used += walk(task, np.random.default_rng([number, turn]), 50)
    assert set(used) == set(LIKELY)
    assert min(used.values()) > 10


def test_solutions_win_at_the_optimum(house: list[Task]) -> None:
    for task in house[:: max(1, len(house) // 20)]:
        env = envs.make_env(task)
        env.reset(seed=task.seed, options={"task": task})
        state = house_plan(task.kwargs["house"]).start(task.kwargs["start"])
        turns = [env.step(f"A thought.\n> {c}") for c in solve(state, goal_of(task))]
        assert [turn[2] for turn in turns] == [False] * (len(turns) - 1) + [True]
        assert (len(turns), turns[-1][1], turns[-1][4]["won"]) == (task.optimal, 1.0, True)


def test_observations_are_objective_answer_and_room(house: list[Task]) -> None:
    task = house[0]
    state = house_plan(0).start(task.kwargs["start"])
    env = envs.make_env(task)
    assert env.reset()[0] == f"{goal_of(task)}\n{state.describe()}"
    assert env.step("> eat the roof")[0].endswith(f"\n{state.describe()}")
    refused, *_, info = env.step("> save")
    assert refused == f"That is not a command here.\n{state.describe()}"
    assert info["invalid_action"] == "about the program, not the game"
    assert env.step("> look")[0] == state.describe()


def test_environments_share_an_engine_and_do_not_meet(house: list[Task]) -> None:
    ours = [envs.make_env(house[0]) for _ in range(2)]
    for env in ours:
        env.reset()
    path = solve(house_plan(0).start(house[0].kwargs["start"]), goal_of(house[0]))
    told = [[env.step(f"> {command}")[0] for env in ours] for command in path]
    assert all(left == right for left, right in told)
    assert engine_of(game_path(0, house[0].kwargs["start"])) is open_house(house[0])[0]


def test_a_game_has_the_same_bytes_again(house: list[Task], tmp_path: Path) -> None:
    start = house[0].kwargs["start"]
    build_game(house_plan(0), start, tmp_path / "again.z8")
    assert (tmp_path / "again.z8").read_bytes() == game_path(0, start).read_bytes()


def test_another_plan_s_game_is_refused(house: list[Task]) -> None:
    start = house[0].kwargs["start"]
    engine = open_house(house[0])[0]
    memory = engine.start()[1].memory
    other = next(room for room in house_plan(0).rooms if room != start)
    for plan, room in ((house_plan(1), house_plan(1).rooms[0]), (house_plan(0), other)):
        with pytest.raises(EngineError, match="compile it again"):
            HouseReader.of(plan, room, engine.story, memory)


def test_an_engine_refuses_what_was_not_checked(house: list[Task], tmp_path: Path) -> None:
    engine = open_house(house[0])[0]
    with pytest.raises(EngineError, match="checked command"):
        engine.play(engine.start()[1], "\\help")
    with pytest.raises(EngineError, match="no game at"):
        Engine(tmp_path / "none.z8")


def test_a_house_that_inform_cannot_build_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bad = HousePlan({"Hall": (Exit("north", "Study"),), "Study": (Exit("south", "Hall"),)}, {}, {'"': "Hall"})
    monkeypatch.setenv("OPCD_CACHE", str(tmp_path))
    monkeypatch.setattr("envs.game_store.house_plan", lambda seed: bad)
    task = Task("opcd/House-v0", {"house": 1, "start": "Hall"}, 0, Split.TEST, "house/1", "f", 3, 5)
    with pytest.raises(EngineError, match="could not compile"):
        envs.prepare([task])
    assert not list(tmp_path.glob("*.z8"))


def test_prepare_tells_of_its_progress(house: list[Task], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    envs.prepare(house, lambda done, total: told.append((done, total)))
    assert told == []
    monkeypatch.setenv("OPCD_CACHE", str(tmp_path))
    first = house[0].kwargs["start"]
    other = next(task for task in house if task.kwargs["start"] != first)
    envs.prepare([house[0], house[0], other], lambda done, total: told.append((done, total)))
    assert told == [(0, 2), (1, 2), (2, 2)]


@pytest.mark.parametrize(
    "damage", [lambda story: story[:50_000], lambda story: b"", lambda story: story[:5000] + b"x" + story[5001:]]
)
def test_a_damaged_game_is_compiled_again(
    damage: Callable[[bytes], bytes], house: list[Task], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    start = house[0].kwargs["start"]
    whole = game_path(0, start).read_bytes()
    monkeypatch.setenv("OPCD_CACHE", str(tmp_path))  # other tests play from the usual folder meanwhile
    path = game_path(0, start)
    path.write_bytes(damage(whole))
    engine_of.cache_clear()
    assert not is_whole(path)
    envs.make_env(house[0]).reset()
    assert path.read_bytes() == whole
