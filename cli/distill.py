"""`opcd distill`: train a context into the weights of the model that reads it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import Progress, say, say_json
from cli.options import Bank_, Json, Model, Seed

if TYPE_CHECKING:
    from opcd_agents.policies.huggingface import HuggingFacePolicy
    from opcd_agents.recipe import Recipe
    from opcd_agents.runs import RunFolder
    from opcd_agents.types import Context

app = typer.Typer()

ANCHORS = 512  # conversations to draw the anchors of each update from


@app.command(epilog="Example: opcd distill house:7 --context house/7 --bank bank.db --out runs/seven")
def distill(
    tasks: Annotated[str, typer.Argument(help="What to learn, such as house:7.")] = "",
    context: Annotated[str, typer.Option(help="Context of the bank: an id, a scope or latest.")] = "latest",
    model: Model = "pocket",
    bank: Bank_ = Path("bank.db"),
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/distill"),
    recipe: Annotated[Path | None, typer.Option(help="A recipe file; see recipes/.")] = None,
    seed: Seed = 0,
    resume: Annotated[Path | None, typer.Option(help="Go on with this run; needs no other argument.")] = None,
    json: Json = False,
) -> None:
    """Train the notes into the weights of the model that reads them."""
    import envs
    from cli import models
    from experience_bank import Bank
    from opcd_agents.errors import UsageError
    from opcd_agents.recipe import load_recipe, recipe_from
    from opcd_agents.runs import RunFolder

    if resume is not None:
        run = RunFolder.open(resume)
    elif tasks:
        envs.tasks(tasks)  # what is misspelt must be told before a run folder is made
        models.resolve(model)
        steps = load_recipe(recipe) if recipe else models.recipe(model)
        with Bank.open(bank, "r") as store:
            notes = store.context(context)
        run = RunFolder.create(out, run_config(tasks, model, notes, steps, seed))
    else:
        raise UsageError("wanted tasks to learn, such as house:7, or --resume RUN; got neither")
    config = run.config
    policy = models.policy(config["model"])
    with Progress("distill", config["recipe"]["updates"]) as bar:
        result = train(policy, run, recipe_from(config["recipe"]), bar, resume=resume is not None)
    if json:
        say_json(result | {"model": str(run.path / "model")})
    else:
        say(f"best on validation: {result['validation']:.0%} after update {result['best_update']}")
        say(f"model: {run.path / 'model'}")


def run_config(tasks: str, model: str, context: Context, recipe: Recipe, seed: int) -> dict[str, Any]:
    """Everything that is needed to repeat or resume a run."""
    from dataclasses import asdict

    notes = {"id": context.id, "scope": context.scope, "text": context.text}
    return {"tasks": tasks, "model": model, "context": notes, "recipe": asdict(recipe), "seed": seed}


def train(
    policy: HuggingFacePolicy, run: RunFolder, recipe: Recipe, bar: Progress, *, resume: bool = False
) -> dict[str, Any]:
    """Do what the run's config says; leaves the model in `model/` of the run."""
    import envs
    from cli import workflow
    from opcd_agents.learner.distill import Subject
    from opcd_agents.learner.distill import distill as learn
    from opcd_agents.pocket.anchors import make_anchors
    from opcd_agents.types import Split

    config = run.config
    tasks = envs.tasks(config["tasks"])
    train_tasks = workflow.split(tasks, Split.TRAIN)
    validation = workflow.split(tasks, Split.VALIDATION)
    envs.prepare([*train_tasks, *validation])
    anchors = (
        make_anchors(policy.renderer, ANCHORS, config["seed"], config["context"]["text"]) if recipe.anchors else []
    )
    subject = Subject(train_tasks, validation, envs.make_env, config["context"]["text"], anchors)
    result = learn(
        policy,
        subject,
        recipe,
        run,
        seed=config["seed"],
        resume=resume,
        watch=lambda line: bar.update(line["update"], note=_note(line)),
    )
    save_model(policy, run, result)
    return result


def _note(line: dict[str, Any]) -> str:
    loss = f"KL {line['loss']:.4f}" if "loss" in line else "nothing won to learn from"
    return f"{loss}, won {line['won']:.0%}"


def save_model(policy: HuggingFacePolicy, run: RunFolder, result: dict[str, Any]) -> None:
    """Save the weights and the tokenizer, with a card that says what was learnt."""
    folder = run.path / "model"
    policy.network.save_pretrained(folder)  # pyright: ignore[reportUnknownMemberType]
    policy.renderer.save_tokenizer(folder)
    config = run.config
    card = f"""# {config["model"]}, distilled on {config["tasks"]}

On-Policy Context Distillation (arXiv 2602.12275) of the context `{config["context"]["id"]}`, seed {config["seed"]}.

    {config["context"]["text"]}

Recipe: `{config["recipe"]}`. Result: `{result}`. Trained from and for text games: a demonstration model.
"""
    (folder / "README.md").write_text(card)
