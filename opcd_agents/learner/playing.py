"""What a run plays: the rollouts that an update learns from, and validation. Updates nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from opcd_agents.errors import EngineError, UsageError
from opcd_agents.learner.batch import Batch, advantages, marked, played, spoken
from opcd_agents.learner.contexts import Contexts, Nothing
from opcd_agents.learner.parallel import Alone, Workers
from opcd_agents.learner.replay import check_stored, replayed
from opcd_agents.learner.roles import Roles
from opcd_agents.learner.rows import Room
from opcd_agents.policies.huggingface import HuggingFacePolicy
from opcd_agents.recipe import Recipe
from opcd_agents.render import Renderer
from opcd_agents.rollout import deal, play
from opcd_agents.types import Episode, Example, MakeEnv, Outcome, Task


@dataclass(frozen=True)
class Subject:
    """What is to be learnt.

    Attributes:
        tasks: Training tasks, drawn from without regard to order.
        validation: Tasks that choose the weights; disjoint from training and test.
        make_env: Makes the environment of a task.
        contexts: What the teacher reads; `Nothing()` where the method reads none.
        anchors: Examples of other worlds whose rows are the same on both sides.
        stored: Episodes whose beginnings are replayed, where the recipe wants that.
    """

    tasks: Sequence[Task]
    validation: Sequence[Task]
    make_env: MakeEnv
    contexts: Contexts
    anchors: Sequence[Example] = ()
    stored: Sequence[Episode] = ()

    def check(self, recipe: Recipe, renderer: Renderer) -> None:
        """Refuse what a recipe cannot be done with.

        Raises:
            UsageError: There is no context, nothing to play or to validate on, or nothing that could be replayed.
        """
        if recipe.reads_context and isinstance(self.contexts, Nothing):
            raise UsageError(f"wanted a context to learn from with method = {recipe.method!r}, got none")
        if recipe.rollouts == "replay":
            check_stored(self.stored, renderer, recipe)
        elif not self.tasks:
            raise UsageError("wanted tasks to train on, got none")
        if recipe.validate and not self.validation:
            raise UsageError(
                "wanted validation tasks to choose the weights with, got none; use validate = 0, keep = 'last'"
            )


def gathered(
    roles: Roles,
    policy: HuggingFacePolicy,
    subject: Subject,
    recipe: Recipe,
    rng: np.random.Generator,
    workers: Workers,
) -> Batch:
    """The rollouts of one update, this process's share of them, and what is learnt from them.

    Raises:
        EngineError: Every episode failed.
    """
    off, again = roles.informed is not None, recipe.rollouts == "replay"
    player = roles.informed or roles.player
    room = Room.of(policy, roles.learner.teacher, recipe)
    if again:
        dealt = replayed(roles.player, subject.stored, subject.contexts, recipe, rng, workers, room)
        recipe = replace(recipe, rollouts="play", learn="final")  # of the ended episodes, that which was added
    else:
        dealt = played(
            player, subject.tasks, subject.make_env, subject.contexts, recipe, rng, workers, room, informed=off
        )
    weights = advantages([e for e, _ in dealt], recipe.group) if recipe.method == "grpo" else [1.0] * len(dealt)
    examples = [
        one
        for number, ((episode, context), weight) in enumerate(zip(dealt, weights, strict=True))
        if _teaches(episode, recipe)
        for one in marked(episode, context, room, recipe, weight, number)
    ]
    episodes = [episode for episode, _ in dealt]
    whole = [e for e in episodes if e.outcome is not Outcome.FAILED]
    new = [turn for e in episodes for turn in (e.turns[-1:] if again else e.turns)]
    sampled, teaching = sum(len(turn.sampled_ids) for turn in new), sum(one.weight != 0 for one in examples)
    wins, count, ids, learnt = workers.total([sum(e.won for e in whole), len(whole), sampled, teaching])
    _refuse_failed(episodes, count)
    won = None if again else wins / count
    return Batch(examples, bool(learnt), won, int(ids), spoken(new, policy.renderer))


def _refuse_failed(episodes: Sequence[Episode], whole: float) -> None:
    """Stop where no process has an episode that ended: no later one will fare better."""
    if not whole:
        reasons = [episode.error for episode in episodes if episode.error]
        raise EngineError(
            f"every episode failed, so there is nothing to learn from or to judge by; {reasons[0] if reasons else 'no reason was given'!s:.200}"
        )


def _teaches(episode: Episode, recipe: Recipe) -> bool:
    """Whether there is something to learn from an episode: not if it failed; for `sft` only if it was won."""
    whole = bool(episode.turns) and episode.outcome is not Outcome.FAILED
    return whole and (episode.won or recipe.method != "sft")


def validate(
    policy: HuggingFacePolicy, subject: Subject, recipe: Recipe, seed: int, workers: Workers | None = None
) -> float:
    """Share of validation episodes won without the context; the same tasks and chance each time.

    Raises:
        UsageError: There are no validation tasks.
        EngineError: Every episode failed.
    """
    if not subject.validation:
        raise UsageError(
            "wanted validation tasks to choose the weights with, got none; use validate = 0, keep = 'last'"
        )
    workers = workers or Alone()
    rng = np.random.default_rng([seed, 1 << 20])
    numbered = workers.share(list(enumerate(deal(subject.validation, recipe.validation_episodes, rng))))
    tasks, streams = [task for _, task in numbered], [number for number, _ in numbered]
    episodes = play(policy, tasks, subject.make_env, seed=seed, streams=streams, slots=recipe.slots)
    whole = [episode for episode in episodes if episode.outcome is not Outcome.FAILED]
    won, count = workers.total([sum(episode.won for episode in whole), len(whole)])
    _refuse_failed(episodes, count)
    return won / count
