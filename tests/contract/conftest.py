"""Compiled games for the contract tests. They are named by content, so one folder serves every session."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import envs
from opcd_agents.types import Task


@pytest.fixture(scope="session", autouse=True)
def game_cache() -> Iterator[Path]:
    folder = Path(tempfile.gettempdir()) / f"opcd-test-games-{os.getuid()}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPCD_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def house(game_cache: Path) -> list[Task]:
    """The tasks of house 0 from three of its rooms, compiled."""
    every = envs.tasks("house:0")
    rooms = list(dict.fromkeys(task.kwargs["start"] for task in every))[:3]
    found = [task for task in every if task.kwargs["start"] in rooms]
    envs.prepare(found)
    return found
