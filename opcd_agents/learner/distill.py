"""The distillation loop: play, pair the rows, update, validate, checkpoint. One function read downwards.

It is handed tasks, `make_env` and the contexts; it looks nothing up. All chance is derived from (seed, update),
so a resumed run goes on as if it had not stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from opcd_agents.errors import UsageError
from opcd_agents.learner import checkpoint
from opcd_agents.learner.batch import Batch, advantages, marked, played, spoken
from opcd_agents.learner.contexts import Contexts
from opcd_agents.learner.parallel import Alone, Workers
from opcd_agents.learner.replay import check_stored, replayed
from opcd_agents.learner.roles import Load, Roles, cast_roles
from opcd_agents.learner.rows import Room
from opcd_agents.policies.huggingface import HuggingFacePolicy
from opcd_agents.recipe import Recipe
from opcd_agents.rollout import deal, play
from opcd_agents.runs import RunFolder
from opcd_agents.types import Episode, Example, MakeEnv, Outcome, Task

_UPDATES, _SECONDS = 10, 30.0  # most work that a stop may cost
_ADAPT = 1.5  # how far the KL on the anchors may be off its target before their weight changes


@dataclass(frozen=True)
class Subject:
    """What is to be learnt.

    Attributes:
        tasks: Training tasks, drawn from without regard to order.
        validation: Tasks that choose the weights; disjoint from training and test.
        make_env: Makes the environment of a task.
        contexts: What the teacher reads.
        anchors: Examples of other worlds whose rows are the same on both sides.
        stored: Episodes whose beginnings are replayed, where the recipe wants that.
    """

    tasks: Sequence[Task]
    validation: Sequence[Task]
    make_env: MakeEnv
    contexts: Contexts
    anchors: Sequence[Example] = ()
    stored: Sequence[Episode] = ()


@dataclass(frozen=True)
class Distilled:
    """What came of it.

    Attributes:
        trained: The model, or the adapter around it; `save_pretrained` writes it.
        updates: Optimiser steps made.
        best_update: After which the kept weights were best on validation; 0: never validated.
        validation: Rate of wins then.
        sampled: Ids sampled for training in all.
    """

    trained: Any
    updates: int
    best_update: int
    validation: float
    sampled: int

    @property
    def data(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {name: value for name, value in vars(self).items() if name != "trained"}


def distill(
    policy: HuggingFacePolicy,
    subject: Subject,
    recipe: Recipe,
    run: RunFolder,
    *,
    seed: int = 0,
    resume: bool = False,
    load: Load | None = None,
    workers: Workers | None = None,
    watch: Callable[[dict[str, Any]], None] = lambda line: None,
) -> Distilled:
    """Train the policy's model in place; it ends with the weights that `recipe.keep` names.

    Args:
        policy: The student. A frozen teacher is a copy of it as it comes in.
        subject: What is learnt.
        recipe: How.
        run: Takes metrics.jsonl and the checkpoint.
        seed: Seed of all chance.
        resume: Go on from the run's checkpoint.
        load: Loads another teacher of the same vocabulary by its name.
        workers: The processes that share the run; the first one writes.
        watch: Called with each line of metrics.

    Raises:
        LearnerError: An update would not be finite, or a row does not fit the model.
    """
    workers = workers or Alone()
    roles = cast_roles(policy, recipe, load or _no_other, workers, seed)
    going = _Going(policy, subject, recipe, run, seed, workers, roles)
    state = _State(hold=recipe.hold)
    best = snapshot(policy.network)
    if resume and checkpoint.present(run.checkpoint):
        best, kept = checkpoint.restore(roles.learner, run.checkpoint)
        state = _State(**kept)
    if recipe.rollouts == "replay":
        check_stored(subject.stored, policy.renderer, recipe)
    saved = state.seconds
    going.log_from(state.update)
    while (progress := state.progress(recipe)) < 1:
        began = time.perf_counter()
        line = going.update(state, progress)
        if going.judge(state, line):
            best = snapshot(policy.network)
        state.seconds += time.perf_counter() - began
        last = state.progress(recipe) >= 1
        going.log(line | {"seconds": round(state.seconds, 3)})
        if last or state.update % _UPDATES == 0 or state.seconds - saved > _SECONDS:
            going.save(best, state)
            saved = state.seconds
        watch(line)
    if recipe.keep == "best" and recipe.validate:
        policy.network.load_state_dict(best, strict=False)
    trained = roles.adapter or policy.network
    return Distilled(trained, state.update, state.best_update, state.best, state.sampled)


@dataclass
class _State:
    """Where a run is; a checkpoint keeps it as JSON."""

    update: int = 0
    best_update: int = 0
    best: float = -1.0
    sampled: int = 0
    seconds: float = 0.0
    hold: float = 1.0

    def progress(self, recipe: Recipe) -> float:
        """From 0 to 1: by updates or by sampled ids, whichever ends the run first."""
        by_ids = self.sampled / recipe.sampled if recipe.sampled else 0.0
        return max(self.update / recipe.updates, by_ids)


@dataclass(frozen=True)
class _Going:
    """A run under way."""

    policy: HuggingFacePolicy
    subject: Subject
    recipe: Recipe
    run: RunFolder
    seed: int
    workers: Workers
    roles: Roles

    def update(self, state: _State, progress: float) -> dict[str, Any]:
        """Play, and learn from it; returns the line of metrics."""
        recipe = self.recipe
        rng = np.random.default_rng([self.seed, state.update])
        self.roles.refresh()
        batch = _batch(self.roles, self.policy, self.subject, recipe, rng, self.workers)
        state.sampled += batch.sampled
        line: dict[str, Any] = {
            "update": state.update + 1,
            "won": batch.won,
            "sampled_in_all": state.sampled,
        } | batch.spoken
        if batch.teaches:
            scale = min(1.0, (state.update + 1) / 5, 2 * (1 - progress))
            anchors = self.workers.share(deal(self.subject.anchors, recipe.anchors, rng))
            metrics = asdict(self.roles.learner.update(batch.examples, anchors, hold=state.hold, scale=scale))
            line |= metrics.pop("diagnostics") | metrics | {"hold": state.hold}
            state.hold = _adapted(state.hold, metrics["anchor"], recipe)
        state.update += 1
        return line

    def judge(self, state: _State, line: dict[str, Any]) -> bool:
        """Validate where it is time; returns whether the weights of now are the best so far."""
        every = self.recipe.validate
        if not every or (state.update % every and state.progress(self.recipe) < 1):
            return False
        self.roles.refresh()
        line["validation"] = validate(self.roles.player, self.subject, self.recipe, self.seed, self.workers)
        if line["validation"] < state.best:
            return False
        state.best, state.best_update = line["validation"], state.update
        return True

    def log_from(self, update: int) -> None:
        """Forget what was logged later: it will be logged again."""
        if self.workers.rank == 0:
            self.run.truncate(update)

    def log(self, line: dict[str, Any]) -> None:
        """Write a line of metrics."""
        if self.workers.rank == 0:
            self.run.log(line)

    def save(self, best: Mapping[str, Tensor], state: _State) -> None:
        """Write a checkpoint."""
        if self.workers.rank == 0:
            checkpoint.save(self.roles.learner, best, vars(state), self.run.checkpoint)


def validate(
    policy: HuggingFacePolicy, subject: Subject, recipe: Recipe, seed: int, workers: Workers | None = None
) -> float:
    """Share of validation episodes won without the context; the same tasks and chance each time."""
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
    return won / count if count else 0.0


def snapshot(network: torch.nn.Module) -> dict[str, Tensor]:
    """The trained weights as they are now, by name."""
    return {name: p.detach().clone() for name, p in network.named_parameters() if p.requires_grad}


def _batch(
    roles: Roles,
    policy: HuggingFacePolicy,
    subject: Subject,
    recipe: Recipe,
    rng: np.random.Generator,
    workers: Workers,
) -> Batch:
    """The rollouts of one update, this process's share of them, and what is learnt from them."""
    off, again = recipe.method == "off-policy", recipe.rollouts == "replay"
    player = roles.informed if off else roles.player
    room = Room.of(policy, roles.learner.teacher, recipe)
    if again:
        recipe = replace(recipe, learn="final")
        dealt = replayed(roles.player, subject.stored, subject.contexts, recipe, rng, workers, room)
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
    won = None if again else wins / count if count else 0.0
    return Batch(examples, bool(learnt), won, int(ids), spoken(new, policy.renderer))


def _teaches(episode: Episode, recipe: Recipe) -> bool:
    """Whether there is something to learn from an episode: not if it failed; for `sft` only if it was won."""
    whole = bool(episode.turns) and episode.outcome is not Outcome.FAILED
    return whole and (episode.won or recipe.method != "sft")


def _adapted(hold: float, held: float, recipe: Recipe) -> float:
    """The weight of the anchors for the next update (as PPO adapts its KL coefficient, arXiv 1707.06347, section 4)."""
    if not recipe.hold_target or not hold:
        return hold
    kl = held / hold
    if kl > _ADAPT * recipe.hold_target:
        return 2 * hold
    return hold / 2 if kl < recipe.hold_target / _ADAPT else hold


def _no_other(name: str) -> Any:
    raise UsageError(f"wanted a teacher that needs no other model, such as 'frozen', got {name!r}")
