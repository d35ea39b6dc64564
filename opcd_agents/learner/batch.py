"""What an update learns from: episodes played with or without a context, as examples with masks and weights. Updates nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import mean, pstdev
from typing import Any, Final

import numpy as np

from opcd_agents.learner.contexts import Contexts
from opcd_agents.learner.parallel import Workers
from opcd_agents.learner.rows import Room, examples
from opcd_agents.recipe import Recipe
from opcd_agents.render import Renderer
from opcd_agents.rollout import deal, play
from opcd_agents.types import Episode, Example, MakeEnv, Policy, Task, Turn

# Words of doubt: rich contexts take them away, and with them out-of-domain skill (arXiv 2603.24472).
HEDGES: Final = re.compile(r"\b(wait|hmm|perhaps|maybe|alternatively|possibly|might|let me|actually)\b", re.IGNORECASE)

Dealt = tuple[Episode, str]  # an episode and what its teacher reads


@dataclass(frozen=True)
class Batch:
    """What one process learns from in an update, and what all of them played.

    Attributes:
        examples: This process's.
        teaches: Whether any process has one of a weight other than 0.
        won: Share of the episodes that were won, over all processes; None where none was played to its end.
        sampled: Ids sampled, over all processes.
        spoken: See `spoken`; of this process, and of new replies only.
    """

    examples: list[Example]
    teaches: bool
    won: float | None
    sampled: int
    spoken: dict[str, float]


def played(
    policy: Policy,
    tasks: Sequence[Task],
    make_env: MakeEnv,
    contexts: Contexts,
    recipe: Recipe,
    rng: np.random.Generator,
    workers: Workers,
    room: Room,
    *,
    informed: bool,
) -> list[Dealt]:
    """Deal an update's episodes, and play this process's share: the same episodes that one process would play of all.

    Args:
        policy: Who plays.
        tasks: What is drawn from.
        make_env: Makes the environment of a task.
        contexts: What the teacher reads, chosen for each episode.
        recipe: How many, and in what groups.
        rng: The update's chance.
        workers: The processes that share the update; a group is never divided.
        room: How long rows may be.
        informed: Whether the player reads the context.

    Raises:
        ModelError: A context is too long; nothing was played.
    """
    group = recipe.group if recipe.method == "grpo" else 1
    drawn = deal(tasks, recipe.episodes // group, rng)
    grouped = [[(g * group + i, task) for i in range(group)] for g, task in enumerate(drawn)]
    read = [contexts(task, rng) for task in drawn]
    for text in dict.fromkeys(read):
        room.check(text)
    seed = int(rng.integers(2**31))
    mine = [(n, task, read[g]) for g in workers.share(range(len(grouped))) for n, task in grouped[g]]
    found: dict[int, Dealt] = {}
    for text in dict.fromkeys(text for *_, text in mine) if informed else [None]:
        together = [(n, task, own) for n, task, own in mine if text in (None, own)]
        streams = [n for n, *_ in together]
        episodes = play(
            policy,
            [task for _, task, _ in together],
            make_env,
            context=text,
            seed=seed,
            streams=streams,
            slots=recipe.slots,
        )
        found |= {n: (episode, own) for (n, _, own), episode in zip(together, episodes, strict=True)}
    return [found[n] for n, *_ in mine]


def marked(
    episode: Episode, context: str, room: Room, recipe: Recipe, weight: float = 1.0, number: int = 0
) -> list[Example]:
    """The examples of an episode: which ids are learnt from, how they were drawn, what they weigh; none where a mask leaves none.

    Args:
        episode: At least one turn.
        context: What the teacher reads.
        room: How long rows may be.
        recipe: What is learnt.
        weight: Of each row.
        number: Of the episode, in this update.
    """
    flags = [
        flag
        for at, turn in enumerate(episode.turns)
        for flag in _learnt(at, turn, episode, room.renderer, recipe.learn)
    ]
    drawn = [one for turn in episode.turns for one in turn.logprobs]
    found: list[Example] = []
    at = 0
    for one in examples(episode, room.renderer, context, room.most):
        size = len(one.student.said)
        mine = tuple(flags[at : at + size])
        if any(mine):
            logs = tuple(drawn[at : at + size]) if recipe.importance else ()
            learnt = () if all(mine) else mine
            found.append(replace(one, learnt=learnt, drawn=logs, weight=weight, episode=number))
        at += size
    return found


def advantages(episodes: Sequence[Episode], group: int) -> list[float]:
    """How much better each episode did than its group, in standard deviations; 0 where all did the same (GRPO, arXiv 2402.03300).

    Args:
        episodes: Whole groups, one after the other.
        group: Episodes of a group. Failed ones are left out of it.
    """
    found: list[float] = []
    for start in range(0, len(episodes), group):
        members = episodes[start : start + group]
        rewards = [float(e.won) for e in members if e.error is None]
        middle, spread = (mean(rewards), pstdev(rewards)) if rewards else (0.0, 0.0)
        found += [(float(e.won) - middle) / spread if spread and e.error is None else 0.0 for e in members]
    return found


def spoken(turns: Sequence[Turn], renderer: Renderer) -> dict[str, Any]:
    """What replies were like: `cut` (share that was cut off), `hedges` (words of doubt in 1,000 sampled ids)."""
    turns = [turn for turn in turns if turn.sampled_ids]
    if not turns:
        return {}
    cut = sum(turn.sampled_ids[-1] != renderer.end_id for turn in turns)
    hedges = sum(len(HEDGES.findall(turn.reply)) for turn in turns)
    return {"cut": cut / len(turns), "hedges": 1000 * hedges / sum(len(turn.sampled_ids) for turn in turns)}


def _learnt(number: int, turn: Turn, episode: Episode, renderer: Renderer, which: str) -> list[bool]:
    """Which ids of a reply are learnt from."""
    size = len(turn.sampled_ids)
    if which == "final":
        return [number == len(episode.turns) - 1] * size
    thought = renderer.thought(turn.sampled_ids) if which == "answer" else 0
    return [False] * thought + [True] * (size - thought)
