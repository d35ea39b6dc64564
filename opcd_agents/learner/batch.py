"""What an update learns from: episodes played with or without a context, as examples with masks and weights. Updates nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import mean, pstdev
from typing import Any, Final

import numpy as np

from opcd_agents.errors import ModelError, UsageError
from opcd_agents.learner.contexts import Contexts
from opcd_agents.learner.parallel import Workers
from opcd_agents.learner.rows import examples, next_prompt
from opcd_agents.learner.teachers import Teacher
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


@dataclass(frozen=True)
class Room:
    """How long rows may be.

    Attributes:
        renderer: Of the student's tokenizer.
        most: Most ids of a row: the positions of student or teacher, whichever has fewer; None: no limit.
        reply: Most ids of a reply.
    """

    renderer: Renderer
    most: int | None
    reply: int

    @classmethod
    def of(cls, policy: HuggingFacePolicy, teacher: Teacher | None, recipe: Recipe) -> Room:
        """What both models take."""
        known = [positions(policy.network), teacher.positions if teacher else None]
        return cls(policy.renderer, min((n for n in known if n is not None), default=None), recipe.longest)

    def check(self, context: str, prompt: Sequence[int] = ()) -> None:
        """Refuse a context before anything is sampled that would not fit.

        Args:
            context: What the teacher reads.
            prompt: All ids in front of a reply, without the context; empty: an opening that shows nothing.

        Raises:
            ModelError: With the context and a reply of the longest kind, a row would be longer than the models take.
        """
        bare = self.renderer.opening(None, "")
        length = len(self.renderer.opening(context, "")) - len(bare) + len(prompt or bare) + self.reply
        if self.most is not None and length > self.most:
            raise ModelError(
                f"wanted rows of at most {self.most} ids, the positions of student and teacher, got a prompt with the context that would make "
                f"them {length} with a reply of {self.reply}; shorten the context, lower longest, or take models with more positions"
            )


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
        raise UsageError("wanted stored episodes with token ids to replay, got none; collect some with the student")
    for episode in stored:
        before = None
        for number, turn in enumerate(episode.turns):
            if reason := _strange(turn, before, renderer, recipe):
                who = episode.provenance.model
                raise UsageError(
                    f"wanted stored episodes to replay as this student has them, got one of {who!r} whose turn {number + 1} {reason}; "
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
    return [(e, n) for e in stored for n, turn in enumerate(e.turns) if turn.prompt_ids]


def _ended(episode: Episode, number: int, reply: Reply) -> Episode:
    """The beginning of an episode with another reply at its end."""
    asked = episode.turns[number]
    new = replace(asked, reply=reply.text, sampled_ids=reply.sampled_ids, logprobs=reply.logprobs)
    return replace(episode, turns=(*episode.turns[:number], new))


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
