import pytest

import envs
from envs.house_data import goal_of
from opcd_agents.errors import UsageError
from opcd_agents.pocket.houses import Goal
from opcd_agents.types import Split, Task


def split(tasks: list[Task]) -> tuple[list[Task], list[Task]]:
    return [t for t in tasks if t.split is Split.TRAIN], [t for t in tasks if t.split is Split.TEST]


def wins(by_task: object) -> float:
    assert isinstance(by_task, dict)
    return sum(w for w, _ in by_task.values()) / sum(n for _, n in by_task.values())


def test_chance_and_blindness_win_little_in_a_house() -> None:
    train, test = split(envs.tasks("house:7"))
    blind = envs.best_blind(train, test)
    chance = envs.random_wins(test, seed=1, repeats=5)
    assert wins(chance) < 0.05
    assert wins(blind.by_task) < 0.2
    assert wins(envs.best_blind(train, train).by_task) > 0.05
    assert set(blind.by_task) == set(chance) == {task.fingerprint for task in test}


def test_blindness_suffices_for_one_task() -> None:
    task = next(t for t in envs.tasks("house:2") if goal_of(t) == Goal(goal_of(t).thing))
    blind = envs.best_blind([task], [task])
    assert blind.by_task == {task.fingerprint: (1, 1)}
    assert len(blind.sequence) >= (task.optimal or 0)


def test_digits() -> None:
    train, test = split(envs.tasks("operator:3#4"))
    assert wins(envs.random_wins(test, 0, 50)) == pytest.approx(0.19, abs=0.04)
    assert len(envs.best_blind(train, test).sequence) == 2


def test_the_same_seed_gives_the_same_wins() -> None:
    _, test = split(envs.tasks("house:1"))
    assert envs.random_wins(test, 3, 2) == envs.random_wins(test, 3, 2)


def test_a_blind_player_plays_one_scope() -> None:
    with pytest.raises(UsageError, match="one scope"):
        envs.best_blind(envs.tasks("house:1"), envs.tasks("house:2"))
    with pytest.raises(UsageError, match="at least one"):
        envs.best_blind([], [])
