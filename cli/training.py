"""A run from its folder: begun, measured, trained, saved. What `opcd distill`, `rounds` and `demo` share. Knows no command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.console import Progress, tell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opcd_agents.learner.contexts import Contexts
    from opcd_agents.learner.distill import Distilled
    from opcd_agents.policies.huggingface import HuggingFacePolicy
    from opcd_agents.recipe import Recipe
    from opcd_agents.runs import RunFolder
    from opcd_agents.types import Context, Episode, Policy

ANCHORS = 2048  # conversations to draw the anchors of each update from; few would be learnt by heart


def preflight(policy: HuggingFacePolicy, run: RunFolder) -> None:
    """Measure what there is to gain, and say so where there is nothing: gains are about linear in it (arXiv 2605.30070)."""
    import envs
    from cli import workflow
    from opcd_agents.learner.parallel import found
    from opcd_agents.recipe import recipe_from
    from opcd_agents.scores import score
    from opcd_agents.types import Context, Split

    config = run.config
    recipe = recipe_from(config["recipe"])
    if not recipe.preflight or not config["contexts"]:
        return
    workers = found()
    tasks = workflow.split(envs.tasks(config["tasks"]), Split.VALIDATION)
    first = config["contexts"][0]
    notes = Context(first["id"], first["text"], "", 0, first["scope"])
    with Progress("measure the gap", 2 * recipe.preflight) as bar:

        def rate(context: Context | None, rounds: int) -> float:
            played = workflow.gather(
                policy, tasks, recipe.preflight, seed=config["seed"], context=context, share=workers.share,
                watch=lambda what, n, total: bar.update(rounds * total + n, 2 * total, what),
            )  # fmt: skip
            return score(workers.together(played)).rate

        rates = rate(None, 0), rate(notes, 1)
    if workers.rank:  # the first process speaks for all
        return
    run.log({"update": 0, "without_context": rates[0], "with_context": rates[1]})
    tell(
        f"on {recipe.preflight} validation episodes each: {rates[0]:.0%} won without the context, {rates[1]:.0%} with it"
    )
    if rates[1] <= rates[0]:
        tell(
            "the context does not help this model to play: there is nothing to distill; look for a better one with `opcd bank validate`"
        )


def stored_in(bank: str, scope: str, recipe: Recipe) -> dict[str, Any]:
    """What a run that replays must know: the bank and the train episodes that the student had there when it began."""
    from experience_bank import Bank
    from opcd_agents.types import Split

    if recipe.rollouts != "replay":
        return {}
    with Bank.open(bank, "r") as store:
        keys = store.episode_ids(scope, Split.TRAIN, "student")
    return {"bank": bank if "://" in bank else str(Path(bank).resolve()), "replayed": keys}


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

    read = [{"id": context.id, "scope": context.scope, "text": context.text} for context in contexts]
    model = {"model": policy.name, "weights": policy.weights}
    return {"tasks": tasks, **model, "contexts": read, "recipe": asdict(recipe), "seed": seed, "track": list(track)}


def train(
    policy: HuggingFacePolicy, run: RunFolder, recipe: Recipe, bar: Progress, *, resume: bool = False
) -> dict[str, Any]:
    """Do what the run's config says; leaves the model in `model/` of the run."""
    import envs
    from cli import models, workflow
    from cli.trackers import Tracking
    from opcd_agents.learner.distill import Subject
    from opcd_agents.learner.distill import distill as learn
    from opcd_agents.learner.parallel import found
    from opcd_agents.pocket.anchors import make_anchors
    from opcd_agents.types import Split

    config = run.config
    tasks = envs.tasks(config["tasks"])
    train_tasks = workflow.split(tasks, Split.TRAIN)
    validation = workflow.split(tasks, Split.VALIDATION)
    envs.prepare([*train_tasks, *validation])
    texts = [one["text"] for one in config["contexts"]]
    anchors = make_anchors(policy.renderer, ANCHORS, config["seed"], "\n".join(texts)) if recipe.anchors else []
    subject = Subject(train_tasks, validation, envs.make_env, _contexts(recipe, texts), anchors, _stored(config))
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
            load=lambda name: models.teacher(name, policy),
            workers=workers,
            watch=watch,
        )
    if workers.rank == 0:
        save_model(policy, run, result)
    workers.wait()  # what comes next reads it whole
    return result.data


def _stored(config: dict[str, Any]) -> list[Episode]:
    """The episodes that a run replays."""
    from experience_bank import Bank

    if "replayed" not in config:
        return []
    with Bank.open(config["bank"], "r") as store:
        return [store.episode(key)[1] for key in config["replayed"]]


def _contexts(recipe: Recipe, texts: Sequence[str]) -> Contexts:
    from opcd_agents.learner.contexts import Drawn, Fixed, Solutions

    if recipe.contexts == "solution":
        return Solutions()
    return Drawn(texts) if recipe.contexts == "random" else Fixed(texts[0])


def _note(line: dict[str, Any]) -> str:
    loss = f"loss {line['loss']:.4f}" if "loss" in line else "nothing won to learn from"
    return loss if line["won"] is None else f"{loss}, won {line['won']:.0%}"


def save_model(policy: HuggingFacePolicy, run: RunFolder, result: Distilled) -> None:
    """Save the weights and the tokenizer, with a card that says what was learnt; all of it or nothing.

    Raises:
        RunError: The disk is full or the folder cannot be written.
    """
    import shutil

    from safetensors import SafetensorError

    from opcd_agents.errors import RunError

    folder, part = run.path / "model", run.path / ".model.part"
    try:
        shutil.rmtree(part, ignore_errors=True)
        result.trained.save_pretrained(part)
        policy.renderer.save_tokenizer(part)
        (part / "README.md").write_text(_card(run.config, result.data), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(part, ignore_errors=True)
        raise RunError(f"cannot write the model to {folder}: {error}; make room, then --resume {run.path}") from error


def _quoted(contexts: Sequence[dict[str, str]]) -> str:
    """Contexts as Markdown that nothing in them can leave: indented blocks."""
    texts = [f"    {line}" for one in contexts for line in (f"context {one['id']}:", *one["text"].splitlines())]
    return "\n".join(texts) or "    each task's reference solution"


def _card(config: dict[str, Any], result: dict[str, Any]) -> str:
    return f"""# {config["model"]}, distilled on {config["tasks"]}

On-Policy Context Distillation (arXiv 2602.12275), method `{config["recipe"]["method"]}`, seed {config["seed"]}. What the teacher read:

{_quoted(config["contexts"])}

Recipe: `{config["recipe"]}`. Result: `{result}`. Trained from and for text games: a demonstration model.
"""
