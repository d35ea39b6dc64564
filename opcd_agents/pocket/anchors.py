"""Conversations that a student is held to while it learns something else: reading notes in worlds it has not seen.

They are drawn from the curriculum, always with notes, and rendered by the student's own renderer, so they
cost no play and no game. A retention mix in the sense of arXiv 2607.18110 (other data, never-updated teacher).
"""

from __future__ import annotations

import numpy as np

from opcd_agents.pocket.curriculum import Conversation, house_episode, operator_episode, recall_episode
from opcd_agents.render import Renderer
from opcd_agents.types import Example, Tokens


def make_anchors(renderer: Renderer, count: int, seed: int, context: str) -> list[Example]:
    """Draw conversations with notes: eight in ten in houses, the rest operators and recitals.

    Most houses are built of the very names that the context speaks of, put elsewhere: there the student must
    believe its notes against what it is learning.

    Args:
        renderer: The student's.
        count: How many.
        seed: Seed of all chance.
        context: What the student is to learn.

    Returns:
        Examples whose two rows are the same; every reply counts as sampled.
    """
    rng = np.random.default_rng(seed)
    names = frozenset(context.replace(".", " ").split())
    return [_example(_conversation(rng, names), renderer) for _ in range(count)]


def _conversation(rng: np.random.Generator, names: frozenset[str]) -> Conversation:
    family = rng.random()
    if family < 0.8:
        return house_episode(rng, 8, with_notes=True, clean=True, favoured=names if family < 0.55 else ())
    return operator_episode(rng, with_notes=True) if family < 0.9 else recall_episode(rng, 8)


def _example(conversation: Conversation, renderer: Renderer) -> Example:
    context, first, *rest = ("".join(span.text for span in message) for message in conversation)
    ids = renderer.opening(context, first)
    sampled = [False] * len(ids)
    for index, text in enumerate(rest):
        if index % 2 == 0:
            piece = renderer.reply(text)
            sampled += [True] * len(piece)
        else:
            piece = renderer.following(ids[-1:], text)
            sampled += [False] * len(piece)
        ids += piece
    row = Tokens(tuple(ids), tuple(sampled))
    return Example(row, row)
