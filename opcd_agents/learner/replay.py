"""Replies to beginnings of stored episodes: what is learnt from where no game is played. Updates nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from opcd_agents.errors import UsageError
from opcd_agents.learner.batch import Dealt
from opcd_agents.learner.contexts import Contexts
from opcd_agents.learner.parallel import Workers
from opcd_agents.learner.rows import Room, next_prompt
from opcd_agents.policies.huggingface import HuggingFacePolicy
from opcd_agents.recipe import Recipe
from opcd_agents.render import Renderer
from opcd_agents.rollout import deal
from opcd_agents.types import Episode, Reply, Turn


def replayed(
    policy: HuggingFacePolicy,
    stored: Sequence[Episode],
    contexts: Contexts,
    recipe: Recipe,
    rng: np.random.Generator,
    workers: Workers,
    room: Room,
) -> list[Dealt]:
    """Only the next reply, on beginnings of stored episodes: no game is needed (OEL, arXiv 2603.16856).

    Args:
        policy: The student.
        stored: Episodes that passed `check_stored`.
        contexts: What the teacher reads, chosen for each reply.
        recipe: How many.
        rng: The update's chance.
        workers: The processes that share the update.
        room: How long rows may be.

    Returns:
        This process's share: episodes that end with the new reply, of which nothing else is to be learnt.

    Raises:
        ModelError: A beginning is too long with its context; nothing was sampled.
    """
    beginnings = _beginnings(stored)
    drawn = deal(beginnings, recipe.episodes, rng)
    read = [contexts(episode.task, rng) for episode, _ in drawn]
    seed = int(rng.integers(2**31))
    mine = workers.share(range(len(drawn)))
    prompts = [next_prompt(*drawn[n], policy.renderer) for n in mine]
    for n, prompt in zip(mine, prompts, strict=True):
        room.check(read[n], prompt)
    replies: list[Reply] = []
    for at in range(0, len(mine), recipe.slots):
        some = slice(at, at + recipe.slots)
        replies += policy.complete(prompts[some], [seed * 1_000_003 + n for n in mine[some]])
    return [(_ended(*drawn[n], reply), read[n]) for n, reply in zip(mine, replies, strict=True)]


def check_stored(stored: Sequence[Episode], renderer: Renderer, recipe: Recipe) -> None:
    """Refuse episodes whose beginnings could not be replayed, as this student would have them.

    Raises:
        UsageError: None has token ids, the ids are not this tokenizer's, turns do not follow each other as this renderer's
            history `append` has them, or there are no log-probabilities where importance weights want them.
    """
    if not _beginnings(stored):
        raise UsageError("wanted stored episodes with token ids, got none; collect some with the student")
    for episode in stored:
        before = None
        for number, turn in enumerate(episode.turns if has_ids(episode) else ()):
            if reason := _strange(turn, before, renderer, recipe):
                who = episode.provenance.model
                raise UsageError(
                    f"wanted stored episodes as this student would have them, got one of {who!r} whose turn {number + 1} {reason}; "
                    "collect some with the student"
                )
            before = turn


def _strange(turn: Turn, before: Turn | None, renderer: Renderer, recipe: Recipe) -> str:
    """What is wrong with a stored turn; "" if nothing is."""
    if renderer.text(turn.sampled_ids) != turn.reply:
        return "has ids that do not stand for its reply: another tokenizer"
    if before and renderer.history == "append":
        follows = renderer.following(before.sampled_ids, turn.observation)
        if list(turn.prompt_ids) != follows:
            return "does not follow the one before as history = 'append' has it; was it played with 'per_turn', or another chat template?"
    if recipe.importance and len(turn.logprobs) != len(turn.sampled_ids):
        return "has no log-probabilities, which importance wants"
    return ""


def _beginnings(stored: Sequence[Episode]) -> list[tuple[Episode, int]]:
    """Whatever can be replayed: an episode, and which reply is said anew."""
    return [(e, n) for e in stored if has_ids(e) for n in range(len(e.turns))]


def has_ids(episode: Episode) -> bool:
    """Whether every turn of an episode has token ids; one that was played by text has none."""
    return bool(episode.turns) and all(turn.prompt_ids and turn.sampled_ids for turn in episode.turns)


def _ended(episode: Episode, number: int, reply: Reply) -> Episode:
    """The beginning of an episode with another reply at its end."""
    asked = episode.turns[number]
    new = replace(asked, reply=reply.text, sampled_ids=reply.sampled_ids, logprobs=reply.logprobs)
    return replace(episode, turns=(*episode.turns[:number], new))
