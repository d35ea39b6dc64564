"""Play tasks with a policy: a batch of environments, a batch of replies at a time, episodes out.

The order of the results is the order of the tasks, and what is played does not depend on the size of a batch.
Knows neither tokens nor what an environment is about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import TypeVar

import numpy as np

from opcd_agents.types import Episode, Info, MakeEnv, Outcome, Playable, Policy, Provenance, Reply, Task, Turn

_T = TypeVar("_T")


def code_version() -> str:
    """Version of the installed distribution."""
    try:
        return version("opcd-agents")
    except PackageNotFoundError:
        return "unknown"


@dataclass
class _Slot:
    """One running episode. `heard` is the observation that waits for a reply."""

    task: Task
    env: Playable
    heard: str
    info: Info
    turns: list[Turn] = field(default_factory=list[Turn])
    outcome: Outcome | None = None
    error: str | None = None

    def take(self, reply: Reply) -> None:
        """Act on a reply. What the environment raises ends this episode as failed and no other."""
        try:
            observation, reward, terminated, truncated, info = self.env.step(reply.text)
        except Exception as error:
            self.outcome, self.error = Outcome.FAILED, f"{type(error).__name__}: {error}"
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
            )
        )
        self.heard, self.info = observation, info
        if terminated:
            self.outcome = Outcome.WON if info.get("won") else Outcome.LOST
        elif truncated:
            self.outcome = Outcome.TRUNCATED


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
        slots: How many episodes run side by side.
        done: Called with each episode, in task order, after each batch.

    Returns:
        One episode a task, in the order of the tasks.
    """
    episodes: list[Episode] = []
    weights, code = policy.weights, code_version()  # a hash of all weights: once, not for every episode
    for first in range(0, len(tasks), slots):
        batch = tasks[first : first + slots]
        seeds = [seed * 1_000_003 + first + i for i in range(len(batch))]
        for index, slot in enumerate(_play_batch(policy, batch, make_env, context, seeds)):
            provenance = Provenance(policy.name, weights, seeds[index], code, context_id)
            outcome = slot.outcome or Outcome.FAILED
            episode = Episode(slot.task, tuple(slot.turns), outcome, provenance, slot.heard, slot.error)
            episodes.append(episode)
            if done is not None:
                done(episode)
    return episodes


def _play_batch(
    policy: Policy, tasks: Sequence[Task], make_env: MakeEnv, context: str | None, seeds: Sequence[int]
) -> list[_Slot]:
    slots = [_open(task, make_env) for task in tasks]
    session = policy.begin(context, seeds)
    while running := dict(_running(slots)):
        for index, reply in session.reply(running).items():
            slots[index].take(reply)
    return slots


def _open(task: Task, make_env: MakeEnv) -> _Slot:
    env = make_env(task)
    try:
        heard, info = env.reset(seed=task.seed, options={"task": task})
    except Exception as error:
        return _Slot(task, env, "", {}, outcome=Outcome.FAILED, error=f"{type(error).__name__}: {error}")
    return _Slot(task, env, heard, info)


def _running(slots: Sequence[_Slot]) -> Iterator[tuple[int, tuple[str, Info]]]:
    for index, slot in enumerate(slots):
        if slot.outcome is None:
            yield index, (slot.heard, slot.info)
