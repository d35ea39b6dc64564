"""What is said to solve a task does, in the environment itself; and anchors of worlds that only an engine knows."""

import json
from pathlib import Path

import pytest

import envs
from envs.anchors import _played
from opcd_agents.types import Split, Task


@pytest.mark.parametrize("spec", ["operator:3#4", "frozen-lake:", "sokoban:"])
def test_known_solutions_win_in_the_environment(spec: str) -> None:
    for task in envs.tasks(spec)[:20]:
        way = envs.solution(task)
        assert way
        assert len(way) == task.optimal
        assert _played(task, way)
        assert not _played(task, way[:-1])


def test_solutions_of_a_house_win(house: list[Task]) -> None:
    for task in house[::11]:
        way = envs.solution(task)
        assert way
        assert len(way) == task.optimal
        assert _played(task, way)


def test_an_answer_wins_with_every_checker(tmp_path: Path) -> None:
    pytest.importorskip("math_verify")
    file = tmp_path / "q.jsonl"
    file.write_text(json.dumps({"question": "2 * 21?", "answer": 42}) + "\n")
    for check in ("exact", "dapo", "verify"):
        (task,) = envs.tasks(f"math:{file},check={check}")
        assert _played(task, envs.solution(task) or ())


def test_a_task_of_a_stranger_has_no_solution() -> None:
    assert envs.solution(Task("opcd/Moon-v0", {}, 0, Split.TEST, "moon", "f", None, 3)) is None


def test_anchors_where_only_the_engine_knows_the_world(game_cache: Path) -> None:
    tasks = envs.tasks("coin:level=3,games=4")
    blind = envs.best_blind(tasks, tasks)
    assert blind.sequence in {envs.solution(task) for task in tasks}
    assert sum(wins for wins, _ in blind.by_task.values()) >= 1
    chance = envs.random_wins(tasks, seed=0, repeats=2)
    assert chance == envs.random_wins(tasks, seed=0, repeats=2)
    assert set(chance) == {task.fingerprint for task in tasks}
    assert {wins for wins, _ in envs.solved(tasks).values()} == {1}
