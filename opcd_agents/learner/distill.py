"""The distillation loop: play, pair the rows, update, validate, checkpoint. One function read downwards.

It is handed tasks, `make_env` and the context; it looks nothing up. All chance is derived from (seed, update),
so a resumed run goes on as if it had not stopped.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from opcd_agents.errors import UsageError
from opcd_agents.learner import checkpoint
from opcd_agents.learner.learner import Average, Learner
from opcd_agents.learner.objectives import ForwardKL, NegativeLogLikelihood, Objective, ReverseKL
from opcd_agents.learner.rows import example
from opcd_agents.policies.huggingface import HuggingFacePolicy
from opcd_agents.recipe import Recipe
from opcd_agents.rollout import deal, play
from opcd_agents.runs import RunFolder
from opcd_agents.scores import score
from opcd_agents.types import Episode, Example, MakeEnv, Outcome, Task

_OBJECTIVES: dict[str, type[Objective]] = {"opcd": ReverseKL, "off-policy": ForwardKL, "sft": NegativeLogLikelihood}

_UPDATES, _SECONDS = 10, 30.0  # most work that a stop may cost


@dataclass(frozen=True)
class Subject:
    """What is to be learnt.

    Attributes:
        tasks: Training tasks, drawn from without regard to order.
        validation: Tasks that choose the weights; disjoint from training and test.
        make_env: Makes the environment of a task.
        context: The text that the teacher reads.
        anchors: Examples of other worlds whose rows are the same on both sides.
    """

    tasks: Sequence[Task]
    validation: Sequence[Task]
    make_env: MakeEnv
    context: str
    anchors: Sequence[Example] = ()


def distill(
    policy: HuggingFacePolicy,
    subject: Subject,
    recipe: Recipe,
    run: RunFolder,
    *,
    seed: int = 0,
    resume: bool = False,
    watch: Callable[[dict[str, Any]], None] = lambda line: None,
) -> dict[str, Any]:
    """Train the policy's model in place; it ends with the weights that `recipe.keep` names.

    Args:
        policy: The student. The teacher is a frozen copy of it as it comes in.
        subject: What is learnt.
        recipe: How.
        run: Takes metrics.jsonl and the checkpoint.
        seed: Seed of all chance.
        resume: Go on from the run's checkpoint.
        watch: Called with each line of metrics.

    Returns:
        `updates`, `best_update`, `validation` (rate) and `sampled`: ids sampled for training in all.
    """
    player, teacher, learner = _roles(policy, recipe)
    state: dict[str, Any] = {"update": 0, "best_update": 0, "best": -1.0, "sampled": 0, "seconds": 0.0}
    best = _snapshot(policy.network)
    if resume and checkpoint.present(run.checkpoint):
        best, state = checkpoint.restore(learner, run.checkpoint)
    saved = state["seconds"]
    run.truncate(state["update"])  # also where no checkpoint was reached: the lines are written again
    while (progress := _progress(state, recipe)) < 1:
        began = time.perf_counter()
        update = state["update"]
        rng = np.random.default_rng([seed, update])
        tasks = deal(subject.tasks, recipe.episodes, rng)
        episodes = _played(teacher if recipe.method == "off-policy" else player, tasks, subject, recipe, rng)
        learnt = [e for e in episodes if _teaches(e, recipe)]
        examples = [example(e, policy.renderer, subject.context) for e in learnt]
        state["sampled"] += sum(len(turn.sampled_ids) for e in episodes for turn in e.turns)
        line: dict[str, Any] = {"update": update + 1, "won": score(episodes).rate, "sampled_in_all": state["sampled"]}
        if examples:
            scale = min(1.0, (update + 1) / 5, 2 * (1 - progress))
            metrics = learner.update(
                examples, deal(subject.anchors, recipe.anchors, rng), hold=recipe.hold, scale=scale
            )
            line |= asdict(metrics)
        state["update"] = done = update + 1
        last = _progress(state, recipe) >= 1
        if recipe.validate and (done % recipe.validate == 0 or last):
            line["validation"] = validate(player, subject, recipe, seed)
            if line["validation"] >= state["best"]:
                state |= {"best": line["validation"], "best_update": done}
                best = _snapshot(policy.network)
        state["seconds"] += time.perf_counter() - began
        run.log(line | {"seconds": round(state["seconds"], 3)})
        if last or done % _UPDATES == 0 or state["seconds"] - saved > _SECONDS:
            checkpoint.save(learner, best, state, run.checkpoint)
            saved = state["seconds"]
        watch(line)
    if recipe.keep == "best" and recipe.validate:
        policy.network.load_state_dict(best, strict=False)
    return {
        "updates": state["update"],
        "best_update": state["best_update"],
        "validation": state["best"],
        "sampled": state["sampled"],
    }


def _roles(policy: HuggingFacePolicy, recipe: Recipe) -> tuple[HuggingFacePolicy, HuggingFacePolicy, Learner]:
    """Who plays, who reads the context (a frozen copy of it), and who learns."""
    initial = copy.deepcopy(policy.network)
    teacher = HuggingFacePolicy(
        initial, policy.renderer, f"{policy.name} (teacher)", recipe.temperature, recipe.longest
    )
    player = HuggingFacePolicy(policy.network, policy.renderer, policy.name, recipe.temperature, recipe.longest)
    _choose_weights(policy.network, recipe.weights)
    average = cast("Average", recipe.average)
    objective, clip = _OBJECTIVES[recipe.method](), recipe.clip or math.inf
    learner = Learner(policy.network, initial, objective, lr=recipe.lr, average=average, clip=clip, pull=recipe.pull)
    return player, teacher, learner


def _progress(state: Mapping[str, Any], recipe: Recipe) -> float:
    """How far the run is, from 0 to 1: by updates or by sampled ids, whichever ends it first."""
    by_ids = state["sampled"] / recipe.sampled if recipe.sampled else 0.0
    return max(state["update"] / recipe.updates, by_ids)


def _choose_weights(network: torch.nn.Module, which: str) -> None:
    """Freeze what is not to be trained."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(which == "all" or ".mlp." in name)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise UsageError("wanted a model with feed-forward layers named `mlp`, got none; use weights = 'all'")


def _played(
    policy: HuggingFacePolicy, tasks: Sequence[Task], subject: Subject, recipe: Recipe, rng: np.random.Generator
) -> list[Episode]:
    """The rollouts of one update: the student's without the context, or the teacher's with it."""
    context = subject.context if recipe.method == "off-policy" else None
    return play(policy, tasks, subject.make_env, context=context, seed=int(rng.integers(2**31)), slots=len(tasks))


def _teaches(episode: Episode, recipe: Recipe) -> bool:
    """Whether there is something to learn from an episode: not if it failed; for `sft` only if it was won."""
    whole = bool(episode.turns) and episode.outcome is not Outcome.FAILED
    return whole and (episode.won or recipe.method != "sft")


def validate(policy: HuggingFacePolicy, subject: Subject, recipe: Recipe, seed: int) -> float:
    """Share of validation episodes won without the context; the same tasks and chance each time."""
    if not subject.validation:
        raise UsageError(
            "wanted validation tasks to choose the weights with, got none; use validate = 0, keep = 'last'"
        )
    rng = np.random.default_rng([seed, 1 << 20])
    tasks = deal(subject.validation, recipe.validation_episodes, rng)
    return score(play(policy, tasks, subject.make_env, seed=seed)).rate


def _snapshot(network: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in network.named_parameters()}
