"""A run from its folder: begun, measured, trained, saved. What `opcd distill`, `rounds` and `demo` share. Knows no command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cli.console import Progress, tell

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from opcd_agents.learner.contexts import Contexts
    from opcd_agents.learner.roles import Roles
    from opcd_agents.policies.huggingface import HuggingFacePolicy
    from opcd_agents.recipe import Recipe
    from opcd_agents.runs import RunFolder
    from opcd_agents.types import Context, Episode, Policy, Task


def check_tasks(tasks: Sequence[Task], recipe: Recipe) -> None:
    """Refuse tasks that a recipe cannot be carried out on, before anything is begun.

    Raises:
        UsageError: There are none to train on, or to validate on though validation is wanted, or they lack the solutions that the teacher is to read.
    """
    import numpy as np

    from cli import workflow
    from opcd_agents.errors import UsageError
    from opcd_agents.learner.contexts import Solutions
    from opcd_agents.types import Split

    train = workflow.split(tasks, Split.TRAIN)
    if recipe.validate and not any(task.split == Split.VALIDATION for task in tasks):
        raise UsageError("wanted validation tasks to choose the weights with, got none; use validate = 0 in a recipe")
    if recipe.contexts == "solution":
        for task in train:
            Solutions()(task, np.random.default_rng())


def cast(policy: HuggingFacePolicy, recipe: Recipe, seed: int) -> Roles:
    """Who plays, teaches and learns in a run; told before it begins if someone is missing."""
    from cli import models
    from opcd_agents.learner.parallel import found
    from opcd_agents.learner.roles import cast_roles

    return cast_roles(policy, recipe, lambda name: models.teacher(name, policy), found(), seed)


def preflight(policy: Policy, run: RunFolder) -> None:
    """Measure what there is to gain, unless that was done before, and say so where there is nothing.

    Gains are about linear in it (arXiv 2605.30070). Of several contexts each is read equally often.

    Raises:
        EngineError: Every episode failed.
    """
    import envs
    from opcd_agents.learner.parallel import found
    from opcd_agents.recipe import recipe_from
    from opcd_agents.types import Context, Split

    config = run.config
    recipe = recipe_from(config["recipe"])
    if recipe.preflight and recipe.contexts == "solution":
        tell("each task has a context of its own, so what there is to gain is not measured")
    if not recipe.preflight or not config["contexts"]:
        return
    if any(line["update"] == 0 for line in run.metrics()):
        return
    tasks = [task for task in envs.tasks(config["tasks"]) if task.split == Split.VALIDATION]
    if not tasks:
        tell("there are no validation tasks, so what there is to gain is not measured")
        return
    contexts = [Context(one["id"], one["text"], "", 0, one["scope"]) for one in config["contexts"]]
    rates = _gap(policy, tasks, contexts, recipe.preflight, config["seed"])
    if found().rank:  # the first process speaks for all
        return
    run.log({"update": 0, "without_context": rates[0], "with_context": rates[1]})
    which = "it" if len(contexts) == 1 else f"one of {len(contexts)}"
    tell(
        f"on {recipe.preflight} validation episodes each: {rates[0]:.0%} won without the context, {rates[1]:.0%} with {which}"
    )
    if rates[1] <= rates[0]:
        tell(
            "the context does not help this model to play: there is nothing to distill; look for a better one with `opcd bank validate`"
        )


def _gap(
    policy: Policy, tasks: Sequence[Task], contexts: Sequence[Context], count: int, seed: int
) -> tuple[float, float]:
    """Rates of wins without the contexts and with them, on the same tasks."""
    import numpy as np

    from cli import workflow
    from opcd_agents.errors import EngineError
    from opcd_agents.learner.parallel import found
    from opcd_agents.rollout import deal
    from opcd_agents.scores import score

    workers = found()
    dealt = deal(tasks, count, np.random.default_rng([seed, 1]))
    with Progress("measure the gap", 2 * count) as bar:

        def played(context: Context | None, these: Sequence[Task], done: int) -> list[Episode]:
            mine = workflow.gather(
                policy, these, len(these), seed=seed, context=context, share=workers.share,
                watch=lambda what, n, total: bar.update(done + n * workers.size, 2 * count, what),
            )  # fmt: skip
            return workers.together(mine)

        bare = played(None, dealt, 0)
        informed = [
            episode
            for i, context in enumerate(contexts[:count])
            for episode in played(context, dealt[i :: len(contexts)], count)
        ]
    scores = score(bare), score(informed)
    if not all(one.episodes for one in scores):
        why = next((episode.error for episode in (*bare, *informed) if episode.error), "no reason was given")
        raise EngineError(f"every episode failed, so there is nothing to learn from; {why:.200}")
    return scores[0].rate, scores[1].rate


def begun(out: Path, config: dict[str, Any]) -> RunFolder:
    """A new run; where several processes share it, the first one makes it."""
    from opcd_agents.learner.parallel import found
    from opcd_agents.runs import RunFolder

    workers = found()
    run = RunFolder.create(out, config) if workers.rank == 0 else None
    workers.wait()
    return run or RunFolder.open(out)


def run_config(
    tasks: str,
    policy: Policy,
    contexts: Sequence[Context],
    recipe: Recipe,
    seed: int,
    track: Sequence[str] = (),
) -> dict[str, Any]:
    """Everything that is needed to repeat or resume a run."""
    from dataclasses import asdict

    from cli import models

    read = [{"id": context.id, "scope": context.scope, "text": context.text} for context in contexts]
    model = {"model": models.lasting(policy.name), "weights": policy.weights}
    return {"tasks": tasks, **model, "contexts": read, "recipe": asdict(recipe), "seed": seed, "track": list(track)}


def train(
    policy: HuggingFacePolicy,
    run: RunFolder,
    recipe: Recipe,
    bar: Progress,
    *,
    resume: bool = False,
    roles: Roles | None = None,
) -> dict[str, Any]:
    """Do what the run's config says; leaves the model in `model/` of the run."""
    import envs
    from cli import workflow
    from cli.saving import save_model
    from cli.stored import REPLAYED, anchors_of, episodes
    from cli.trackers import Tracking
    from opcd_agents.learner.distill import Subject
    from opcd_agents.learner.distill import distill as learn
    from opcd_agents.learner.parallel import found
    from opcd_agents.types import Split

    config = run.config
    tasks = envs.tasks(config["tasks"])
    train_tasks = workflow.split(tasks, Split.TRAIN)
    validation = workflow.split(tasks, Split.VALIDATION) if recipe.validate else []
    envs.prepare([*train_tasks, *validation])
    texts = [one["text"] for one in config["contexts"]]
    anchors, replayed = anchors_of(policy, config, recipe), episodes(config, REPLAYED)
    subject = Subject(train_tasks, validation, envs.make_env, _contexts(recipe, texts), anchors, replayed)
    workers = found()
    with Tracking(config["track"] if workers.rank == 0 else [], run.path) as tracking:

        def watch(line: dict[str, Any]) -> None:
            bar.update(line["update"], note=_note(line))
            tracking.log(line)

        result = learn(
            policy,
            subject,
            recipe,
            run,
            seed=config["seed"],
            resume=resume,
            roles=roles or cast(policy, recipe, config["seed"]),
            workers=workers,
            watch=watch,
        )
    if workers.rank == 0:
        save_model(policy, run, result)
    workers.wait()  # what comes next reads it whole
    return result.data


def _contexts(recipe: Recipe, texts: Sequence[str]) -> Contexts:
    from opcd_agents.learner.contexts import Drawn, Fixed, Nothing, Solutions

    if not recipe.reads_context:
        return Nothing()
    if recipe.contexts == "solution":
        return Solutions()
    return Drawn(texts) if recipe.contexts == "random" else Fixed(texts[0])


def _note(line: dict[str, Any]) -> str:
    loss = f"loss {line['loss']:.4f}" if "loss" in line else "nothing won to learn from"
    return loss if line["won"] is None else f"{loss}, won {line['won']:.0%}"
