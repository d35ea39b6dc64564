"""`opcd distill`: train a context into the weights of the model that reads it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from cli.console import Progress, say, say_json, tell
from cli.options import Bank_, Json, Model, Recipe_, Seed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opcd_agents.learner.contexts import Contexts
    from opcd_agents.learner.distill import Distilled
    from opcd_agents.policies.huggingface import HuggingFacePolicy
    from opcd_agents.recipe import Recipe
    from opcd_agents.runs import RunFolder
    from opcd_agents.types import Context, Episode

app = typer.Typer()

ANCHORS = 2048  # conversations to draw the anchors of each update from; few would be learnt by heart


@app.command(epilog="Example: opcd distill house:7 --context house/7 --bank bank.db --out runs/seven")
def distill(
    tasks: Annotated[str, typer.Argument(help="What to learn, such as house:7.")] = "",
    context: Annotated[
        list[str] | None,
        typer.Option(help="Context of the bank: an id, a scope or latest (default); again for several to draw from."),
    ] = None,
    model: Model = "pocket",
    bank: Bank_ = "bank.db",
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/distill"),
    recipe: Recipe_ = None,
    seed: Seed = 0,
    track: Annotated[
        list[str] | None, typer.Option(help="Send metrics to tensorboard, trackio or wandb; may be given again.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with this run; needs no other argument.")] = None,
    json: Json = False,
) -> None:
    """Train the notes into the weights of the model that reads them."""
    import envs
    from cli import models, trackers, workflow
    from experience_bank import Bank
    from opcd_agents.errors import UsageError
    from opcd_agents.recipe import recipe_from
    from opcd_agents.runs import RunFolder

    if resume is not None:
        run = RunFolder.open(resume)
        policy = _same_model(run)
    elif tasks:
        # Whatever can be wrong must be told before a run folder is made.
        chosen, steps = envs.tasks(tasks), models.recipe(model, recipe)
        notes: list[Context] = []
        if steps.contexts != "solution":
            with Bank.open(bank, "r") as store:
                notes = [workflow.about(store.context(name), chosen) for name in context or ["latest"]]
        if len(notes) > 1 and steps.contexts != "random":
            raise UsageError(
                f"wanted one --context, got {len(notes)}; contexts = 'random' in a recipe draws from several"
            )
        trackers.refuse_unknown(track or [])
        policy = models.policy(model, steps)
        config = run_config(tasks, policy, notes, steps, seed, track or [])
        run = begun(out, config | stored_in(bank, chosen[0].scope, steps))
    else:
        raise UsageError("wanted tasks to learn, such as house:7, or --resume RUN; got neither")
    config = run.config
    with Progress("distill", config["recipe"]["updates"]) as bar:
        try:
            result = train(policy, run, recipe_from(config["recipe"]), bar, resume=resume is not None)
        except KeyboardInterrupt:
            tell(f"to go on: opcd distill --resume {shlex.quote(str(run.path))}")
            raise
    if json:
        say_json(result | {"model": str(run.path / "model")})
    else:
        if result["best_update"]:
            say(f"best on validation: {result['validation']:.0%} after update {result['best_update']}")
        say(f"model: {run.path / 'model'}")


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
    policy: HuggingFacePolicy,
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


def _same_model(run: RunFolder) -> HuggingFacePolicy:
    """The model that a run began with; it is the teacher, so no other will do."""
    from cli import models
    from opcd_agents.errors import RunError
    from opcd_agents.recipe import recipe_from

    if damage := _damage(run.config):
        raise RunError(f"{run.path / 'config.json'} is damaged: {damage}; begin a new run")
    policy, began = models.policy(run.config["model"], recipe_from(run.config["recipe"])), run.config["weights"]
    if policy.weights != began:
        raise RunError(
            f"wanted the weights that {run.path} began with ({began}), but {policy.name} now has others "
            f"({policy.weights}); begin a new run"
        )
    return policy


def _damage(config: dict[str, Any]) -> str | None:
    """What is not as `run_config` makes it."""
    kinds = {"tasks": str, "model": str, "weights": str, "contexts": list, "recipe": dict, "seed": int, "track": list}
    wrong = [key for key, kind in kinds.items() if not isinstance(config.get(key), kind)]
    if not wrong and not all(
        isinstance(one, dict)
        and all(isinstance(cast("dict[str, Any]", one).get(key), str) for key in ("id", "scope", "text"))
        for one in config["contexts"]
    ):
        wrong = ["contexts"]
    return f"wanted {kinds[wrong[0]].__name__} for {wrong[0]!r}" if wrong else None


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
