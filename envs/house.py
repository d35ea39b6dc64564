"""`opcd/House-v0`: a TextWorld house, played in the z-machine.

What the player reads is what the compiled game prints; whether the task is solved, and which commands do
something, is read from the game's memory. Every observation ends with the whole room.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, final

from envs.commands import REFUSAL, read_command
from envs.engine import Engine, Snapshot, engine_of
from envs.game_store import game_path, is_whole, prepare
from envs.house_data import goal_of, house_plan, house_task, house_tasks
from envs.house_memory import HouseReader
from envs.text_env import Scene, TextEnv
from opcd_agents.errors import UsageError
from opcd_agents.pocket.houses import Goal

if TYPE_CHECKING:
    from pathlib import Path

    from opcd_agents.types import Task


@final
class HouseEnv(TextEnv):
    """One goal in one house from one room. The game is compiled at the first `reset` if need be."""

    _engine: Engine
    _reader: HouseReader
    _now: Snapshot
    _room_text: str

    def __init__(
        self,
        house: int = 0,
        start: str | None = None,
        goal: dict[str, Any] | None = None,
        render_mode: str | None = None,
    ) -> None:
        """Make the environment of a task.

        Args:
            house: Seed of the house.
            start: The room to start in; None (goal too): the house's first task.
            goal: `{"thing": .., "container": .. or None}`.
            render_mode: See `TextEnv`.
        """
        super().__init__(_named_task(house, start, goal), render_mode)

    def _open(self, task: Task) -> Scene:
        self._engine, self._reader = open_house(task)
        self._room_text, self._now = self._engine.start()
        return self._scene_of(f"{self._objective()}\n{self._room_text}", self._room_text)

    def _answer(self, reply: str) -> Scene:
        said = read_command(reply)
        if said.refused is not None:
            text = f"{REFUSAL}\n{self._room_text}"
            return self._scene_of(text, REFUSAL, said.command, said.refused)
        feedback = self._play(said.command)
        shows_room = "\n-= " in f"\n{feedback}"
        text = feedback if shows_room else f"{feedback}\n{self._room_text}".lstrip("\n")
        return self._scene_of(text, feedback, said.command)

    def _play(self, command: str) -> str:
        feedback, self._now = self._engine.play(self._now, command)
        # The look is not the player's: what it changes (a turn of the game's clock) is thrown away.
        self._room_text, _ = self._engine.play(self._now, "look")
        return feedback

    def _scene_of(self, text: str, feedback: str, action: str = "", invalid: str | None = None) -> Scene:
        state = self._reader.state(self._now.memory)
        won = state.achieves(goal_of(self.task))
        return Scene(text, feedback, tuple(state.commands()), action, invalid, won)

    def _objective(self) -> str:
        return str(goal_of(self.task))


def open_house(task: Task) -> tuple[Engine, HouseReader]:
    """The engine of a task's game and what reads its memory; the game is compiled if need be."""
    path = game_path(task.kwargs["house"], task.kwargs["start"])
    if not is_whole(path):
        prepare([task])
    return engine_of(path), _reader(path, task.kwargs["house"], task.kwargs["start"])


@lru_cache(maxsize=256)
def _reader(path: Path, house: int, start: str) -> HouseReader:
    engine = engine_of(path)
    _, first = engine.start()
    return HouseReader.of(house_plan(house), start, engine.story, first.memory)


def _named_task(house: int, start: str | None, goal: dict[str, Any] | None) -> Task:
    if start is None and goal is None:
        return house_tasks(house)[0]
    if start is None or goal is None or "thing" not in goal:
        raise UsageError("wanted both start and goal={'thing': .., 'container': ..}, or neither")
    return house_task(house, start, Goal(goal["thing"], goal.get("container")))
