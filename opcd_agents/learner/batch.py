"""What an update learns from: episodes played with or without a context, as examples with masks and weights. Updates nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import mean, pstdev
from typing import Any, Final

import numpy as np

from opcd_agents.errors import UsageError
from opcd_agents.learner.contexts import Contexts
from opcd_agents.learner.parallel import Workers
from opcd_agents.learner.rows import examples, next_prompt
from opcd_agents.policies.huggingface import HuggingFacePolicy
from opcd_agents.policies.loading import positions
from opcd_agents.recipe import Recipe
from opcd_agents.render import Renderer
from opcd_agents.rollout import deal, play
from opcd_agents.types import Episode, Example, MakeEnv, Policy, Reply, Task, Turn

# Words of doubt: rich contexts take them away, and with them out-of-domain skill (arXiv 2603.24472).
HEDGES: Final = re.compile(r"\b(wait|hmm|perhaps|maybe|alternatively|possibly|might|let me|actually)\b", re.IGNORECASE)

Dealt = tuple[Episode, str]  # an episode and what its teacher reads


@dataclass(frozen=True)
class Batch:
    """What one process learns from in an update, and what all of them played.

    Attributes:
        examples: This process's.
        teaches: Whether any process has one.
        won: Share of the episodes that were won, over all processes; None where none was played to its end.
        sampled: Ids sampled, over all processes.
        spoken: See `spoken`; of this process.
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
        informed: Whether the player reads the context.
    """
    group = recipe.group if recipe.method == "grpo" else 1
    drawn = deal(tasks, recipe.episodes // group, rng)
    grouped = [[(g * group + i, task) for i in range(group)] for g, task in enumerate(drawn)]
    read = [contexts(task, rng) for task in drawn]
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
            slots=max(len(together), 1),
        )
        found |= {n: (episode, own) for (n, _, own), episode in zip(together, episodes, strict=True)}
    return [found[n] for n, *_ in mine]


def replayed(
    policy: HuggingFacePolicy,
    stored: Sequence[Episode],
    contexts: Contexts,
    recipe: Recipe,
    rng: np.random.Generator,
    workers: Workers,
) -> list[Dealt]:
    """Only the next reply, on beginnings of stored episodes: no game is needed (OEL, arXiv 2603.16856).

    Args:
        policy: The student.
        stored: Episodes with token ids, of a student with this tokenizer.
        contexts: What the teacher reads, chosen for each reply.
        recipe: How many.
        rng: The update's chance.
        workers: The processes that share the update.

    Returns:
        This process's share: episodes that end with the new reply, of which nothing else is to be learnt.

    Raises:
        UsageError: No episode has token ids.
    """
    beginnings = [(e, n) for e in stored for n, turn in enumerate(e.turns) if turn.prompt_ids]
    if not beginnings:
        raise UsageError("wanted stored episodes with token ids to replay, got none; collect some with the student")
    drawn = deal(beginnings, recipe.episodes, rng)
    read = [contexts(episode.task, rng) for episode, _ in drawn]
    seed = int(rng.integers(2**31))
    mine = workers.share(range(len(drawn)))
    prompts = [next_prompt(*drawn[n], policy.renderer) for n in mine]
    replies = policy.complete(prompts, [seed * 1_000_003 + n for n in mine]) if mine else []
    return [(_ended(*drawn[n], reply), read[n]) for n, reply in zip(mine, replies, strict=True)]


def _ended(episode: Episode, number: int, reply: Reply) -> Episode:
    """The beginning of an episode with another reply at its end."""
    asked = episode.turns[number]
    new = replace(asked, reply=reply.text, sampled_ids=reply.sampled_ids, logprobs=reply.logprobs)
    return replace(episode, turns=(*episode.turns[:number], new))


def marked(episode: Episode, context: str, policy: HuggingFacePolicy, recipe: Recipe, weight: float) -> list[Example]:
    """The examples of an episode: which ids are learnt from, how they were drawn, what they weigh; none where a mask leaves none."""
    renderer = policy.renderer
    flags = [
        flag
        for number, turn in enumerate(episode.turns)
        for flag in _learnt(number, turn, episode, renderer, recipe.learn)
    ]
    drawn = [one for turn in episode.turns for one in turn.logprobs]
    found: list[Example] = []
    at = 0
    for one in examples(episode, renderer, context, positions(policy.network)):
        size = len(one.student.said)
        mine = tuple(flags[at : at + size])
        if any(mine):
            logs = tuple(drawn[at : at + size]) if recipe.importance else ()
            found.append(replace(one, learnt=() if all(mine) else mine, drawn=logs, weight=weight))
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


def spoken(episodes: Sequence[Episode], renderer: Renderer) -> dict[str, Any]:
    """What replies were like: `cut` (share that was cut off), `hedges` (words of doubt in 1,000 sampled ids)."""
    turns = [turn for episode in episodes for turn in episode.turns if turn.sampled_ids]
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
