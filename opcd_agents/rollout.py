"""Play tasks with a policy: some environments side by side, a batch of replies at a time, episodes out.

Where a reply is there, its game goes on, and where an episode ends, the next begins, at once. The order of the results is the order of the tasks, and what is
played does not depend on how many run side by side.
Knows neither tokens nor what an environment is about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from opcd_agents.types import Episode, Info, MakeEnv, Outcome, Playable, Policy, Provenance, Reply, Session, Task, Turn

_T = TypeVar("_T")


def code_version() -> str:
    """Version of the installed distribution."""
    try:
        return version("opcd-agents")
    except PackageNotFoundError:
        return "unknown"


@dataclass
class _Slot:
    """One running episode. `heard` is the observation that waits for a reply, `asked` whether the policy has it."""

    task: Task
    env: Playable | None = None
    heard: str = ""
    info: Info = field(default_factory=dict[str, Any])
    asked: bool = False
    turns: list[Turn] = field(default_factory=list[Turn])
    outcome: Outcome | None = None
    error: str | None = None

    def open(self, make_env: MakeEnv) -> None:
        """Begin. What the environment raises, here and later, ends this episode as failed and no other."""
        try:
            self.env = make_env(self.task)
            self.heard, self.info = self.env.reset(seed=self.task.seed, options={"task": self.task})
        except Exception as error:
            self._fail(error)

    def ask(self) -> tuple[str, Info]:
        """What the policy is asked; it owes an answer then."""
        self.asked = True
        return self.heard, self.info

    def take(self, reply: Reply) -> None:
        """Act on a reply."""
        assert self.env is not None
        self.asked = False
        if reply.error:
            self.outcome, self.error = Outcome.FAILED, reply.error
            return
        try:
            observation, reward, terminated, truncated, info = self.env.step(reply.text)
        except Exception as error:
            self._fail(error)
            return
        self.turns.append(
            Turn(
                observation=self.heard,
                reply=reply.text,
                action=str(info.get("action", reply.text)),
                reward=float(reward),
                prompt_ids=reply.prompt_ids,
                sampled_ids=reply.sampled_ids,
                logprobs=reply.logprobs,
                invalid=info.get("invalid_action"),
                admissible=reply.admissible,
            )
        )
        self.heard, self.info = observation, info
        if terminated:
            self.outcome = Outcome.WON if info.get("won") else Outcome.LOST
        elif truncated:
            self.outcome = Outcome.TRUNCATED

    def close(self) -> None:
        """Let go of the environment, whatever state it is in."""
        if self.env is not None:
            with suppress(Exception):
                self.env.close()

    def _fail(self, error: Exception) -> None:
        self.outcome, self.error = Outcome.FAILED, f"{type(error).__name__}: {error}"


def answers(session: Session, heard: Mapping[int, tuple[str, Info]]) -> dict[int, Reply]:
    """The replies of all that are asked, however the session divides them."""
    replies: dict[int, Reply] = {}
    while len(replies) < len(heard):
        replies |= session.reply({} if replies else heard)
    return replies


def deal(items: Sequence[_T], count: int, rng: np.random.Generator) -> list[_T]:
    """`count` items in whole shuffled rounds, so that all come about equally often; none if there are none."""
    if not items:
        return []
    rounds = -(-count // len(items))
    return [items[int(i)] for _ in range(rounds) for i in rng.permutation(len(items))][:count]


def play(
    policy: Policy,
    tasks: Sequence[Task],
    make_env: MakeEnv,
    *,
    context: str | None = None,
    context_id: str | None = None,
    seed: int = 0,
    streams: Sequence[int] | None = None,
    slots: int = 64,
    done: Callable[[Episode], None] | None = None,
) -> list[Episode]:
    """Play every task once.

    Args:
        policy: Who plays.
        tasks: What is played; the same task may stand there several times.
        make_env: Makes the environment of a task.
        context: Text that the policy reads and that stands in no observation.
        context_id: Id of that context, for provenance.
        seed: Seed of the policy's chance; episode `i` uses stream `i`, so the result does not depend on `slots`.
        streams: Stream of each episode, where it is not its number: so several processes play what one would.
        slots: How many episodes run side by side.
        done: Called with each episode, in task order, as soon as it and those before it are over.

    Returns:
        One episode a task, in the order of the tasks.
    """
    seeds = [seed * 1_000_003 + i for i in (range(len(tasks)) if streams is None else streams)]
    weights, code = policy.weights, code_version()  # a hash of all weights: once, not for every episode
    episodes: list[Episode] = []
    waiting: dict[int, _Slot] = {}  # over, but some before them are not
    for index, slot in _over(policy.begin(context, seeds), tasks, make_env, slots):
        waiting[index] = slot
        while (ended := waiting.pop(len(episodes), None)) is not None:
            assert ended.outcome is not None
            provenance = Provenance(policy.name, weights, seeds[len(episodes)], code, context_id)
            episode = Episode(ended.task, tuple(ended.turns), ended.outcome, provenance, ended.heard, ended.error)
            episodes.append(episode)
            if done is not None:
                done(episode)
    return episodes


def _over(session: Session, tasks: Sequence[Task], make_env: MakeEnv, slots: int) -> Iterator[tuple[int, _Slot]]:
    """Play all tasks, at most `slots` at a time; yields each with its number as soon as it is over."""
    running: dict[int, _Slot] = {}
    ahead = enumerate(tasks)
    try:
        while True:
            for index, task in islice(ahead, slots - len(running)):
                running[index] = _Slot(task)
                running[index].open(make_env)
            heard = {i: slot.ask() for i, slot in running.items() if slot.outcome is None and not slot.asked}
            if any(slot.asked for slot in running.values()):
                for index, reply in session.reply(heard).items():
                    running[index].take(reply)
            elif not running:
                return
            for index in [i for i, slot in running.items() if slot.outcome is not None]:
                running[index].close()
                yield index, running.pop(index)
    finally:
        for slot in running.values():
            slot.close()
