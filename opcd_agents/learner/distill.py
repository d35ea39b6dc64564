"""The distillation loop: play, pair the rows, update, validate, checkpoint. One function read downwards.

It is handed tasks, `make_env` and the contexts; it looks nothing up. All chance is derived from (seed, update),
so a resumed run goes on as if it had not stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from opcd_agents.errors import CheckpointError, UsageError
from opcd_agents.learner import checkpoint
from opcd_agents.learner.parallel import Alone, Workers
from opcd_agents.learner.playing import Subject, gathered, validate
from opcd_agents.learner.roles import Load, Roles, cast_roles
from opcd_agents.policies.huggingface import HuggingFacePolicy
from opcd_agents.recipe import Recipe
from opcd_agents.rollout import deal
from opcd_agents.runs import RunFolder

_UPDATES, _SECONDS = 10, 30.0  # most work that a stop may cost
_ADAPT = 1.5  # how far the KL on the anchors may be off its target before their weight changes
_SPAN = 1024.0  # how far their weight may come to be from where it began, either way


@dataclass(frozen=True)
class Distilled:
    """What came of it.

    Attributes:
        trained: The model, or the adapter around it; `save_pretrained` writes it.
        updates: Optimiser steps made.
        best_update: After which the kept weights were best on validation; 0: never validated.
        validation: Rate of wins then.
        sampled: Ids sampled for training in all.
        fell_back: Why it went on from an older checkpoint than the last; "": it did not.
    """

    trained: Any
    updates: int
    best_update: int
    validation: float
    sampled: int
    fell_back: str = ""

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
    roles: Roles | None = None,
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
        roles: Who does what, where that was settled before; None: as `cast_roles` says.
        workers: The processes that share the run; the first one writes.
        watch: Called with each line of metrics.

    Raises:
        UsageError: There is no context to learn from, or there are no tasks to validate on.
        LearnerError: An update would not be finite, or a row does not fit the model.
        EngineError: Every episode of an update or a validation failed.
        CheckpointError: There is a checkpoint that cannot be gone on from.
    """
    workers = workers or Alone()
    subject.check(recipe, policy.renderer)
    roles = roles or cast_roles(policy, recipe, load or _no_other, workers, seed)
    going = _Going(policy, subject, recipe, run, seed, workers, roles)
    state = _State(hold=recipe.hold)
    best, fell_back = snapshot(policy.network), ""
    if resume and checkpoint.present(run.checkpoint):
        best, kept, fell_back = checkpoint.restore(roles.learner, run.checkpoint, run.identity)
        state = _state(kept)
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
        late = workers.most(int(state.seconds - saved > _SECONDS))  # clocks differ; a checkpoint is a joint act
        if last or state.update % _UPDATES == 0 or late:
            going.save(best, state)
            saved = state.seconds
        watch(line)
    if recipe.keep == "best" and recipe.validate:
        policy.network.load_state_dict(best, strict=False)
    trained = roles.trained()
    policy.network = trained if isinstance(trained, PreTrainedModel) else policy.network
    return Distilled(trained, state.update, state.best_update, state.best, state.sampled, fell_back)


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


def _state(kept: Mapping[str, Any]) -> _State:
    try:
        return _State(**kept)
    except TypeError as error:
        raise CheckpointError(
            f"checkpoint belongs to another version of this program ({error}); begin a new run"
        ) from error


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
        batch = gathered(self.roles, self.policy, self.subject, recipe, rng, self.workers)
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
        """Write a checkpoint; whoever goes on finds it whole."""
        if self.workers.rank == 0:
            checkpoint.save(self.roles.learner, best, vars(state), self.run.checkpoint, self.run.identity)
        else:
            checkpoint.hand_over(self.roles.learner, best)
        self.workers.wait()


def snapshot(network: torch.nn.Module) -> dict[str, Tensor]:
    """The trained weights as they are now, by name."""
    return {name: p.detach().clone() for name, p in network.named_parameters() if p.requires_grad}


def _adapted(hold: float, held: float, recipe: Recipe) -> float:
    """The weight of the anchors for the next update (as PPO adapts its KL coefficient, arXiv 1707.06347, section 4)."""
    if not recipe.hold_target or not hold:
        return hold
    kl = held / hold
    if kl > _ADAPT * recipe.hold_target:
        return min(2 * hold, recipe.hold * _SPAN)
    return max(hold / 2, recipe.hold / _SPAN) if kl < recipe.hold_target / _ADAPT else hold


def _no_other(name: str) -> Any:
    raise UsageError(f"wanted a teacher that needs no other model, such as 'frozen', got {name!r}")
