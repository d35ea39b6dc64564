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

    from opcd_agents.learner.roles import Roles
    from opcd_agents.policies.huggingface import HuggingFacePolicy
    from opcd_agents.recipe import Recipe
    from opcd_agents.runs import RunFolder
    from opcd_agents.types import Context, Task

app = typer.Typer()


@app.command(epilog="Example: opcd distill house:7 --context house/7 --bank bank.db --out runs/seven")
def distill(
    tasks: Annotated[str, typer.Argument(help="What to learn, such as house:7.")] = "",
    context: Annotated[
        list[str] | None,
        typer.Option(
            help="Context of the bank: an id, a scope (its blessed one, else its latest) or latest (default); again for several to draw from."
        ),
    ] = None,
    model: Model = "pocket",
    bank: Bank_ = "bank.db",
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/distill"),
    recipe: Recipe_ = None,
    seed: Seed = 0,
    track: Annotated[
        list[str] | None, typer.Option(help="Send metrics to tensorboard, trackio or wandb; may be given again.")
    ] = None,
    anchor: Annotated[
        list[str] | None,
        typer.Option(metavar="SCOPE", help="Hold the student to the bank's episodes on this scope; again for several."),
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with this run; needs no other argument.")] = None,
    json: Json = False,
) -> None:
    """Train the notes into the weights of the model that reads them."""
    from cli.training import preflight, train
    from opcd_agents.errors import UsageError
    from opcd_agents.recipe import recipe_from

    if resume is not None:
        run, policy, roles = _again(resume)
    elif tasks:
        run, policy, roles = _begun(
            tasks, context or [], model, bank, out, recipe, seed, track=track or [], anchors=anchor or []
        )
    else:
        raise UsageError("wanted tasks to learn, such as house:7, or --resume RUN; got neither")
    config = run.config
    try:
        preflight(roles.player, run)
        with Progress("distill", config["recipe"]["updates"]) as bar:
            result = train(policy, run, recipe_from(config["recipe"]), bar, resume=resume is not None, roles=roles)
    except KeyboardInterrupt:
        tell(f"to go on: opcd distill --resume {shlex.quote(str(run.path))}")
        raise
    from opcd_agents.learner.parallel import found  # imports torch, which no usage error should wait for

    if found().rank:  # the first process speaks for all
        return
    if json:
        say_json(result | {"model": str(run.path / "model")})
    else:
        if result["best_update"]:
            say(f"best on validation: {result['validation']:.0%} after update {result['best_update']}")
        say(f"model: {run.path / 'model'}")
    if result["fell_back"]:
        tell(f"went on from an older checkpoint than the last ({result['fell_back']})")
        raise typer.Exit(4)


_Run = tuple["RunFolder", "HuggingFacePolicy", "Roles"]


def _begun(
    tasks: str,
    contexts: Sequence[str],
    model: str,
    bank: str,
    out: Path,
    recipe: Path | None,
    seed: int,
    *,
    track: Sequence[str],
    anchors: Sequence[str],
) -> _Run:
    """A new run. Whatever can be wrong is told before its folder is made."""
    import envs
    from cli import models, trackers
    from cli.stored import anchors_of, stored_in
    from cli.training import begun, cast, check_tasks, run_config

    chosen, steps = envs.tasks(tasks), models.recipe(model, recipe)
    notes = _read(bank, contexts, chosen, steps)
    trackers.refuse_unknown(track)
    check_tasks(chosen, steps)
    stored = stored_in(bank, chosen[0].scope, steps, anchors)
    policy = models.policy(model, steps)
    config = run_config(tasks, policy, notes, steps, seed, track) | stored
    if anchors:
        anchors_of(policy, config, steps)
    roles = cast(policy, steps, seed)
    return begun(out, config), policy, roles


def _again(path: Path) -> _Run:
    """A run that goes on."""
    from cli.training import cast
    from opcd_agents.recipe import recipe_from
    from opcd_agents.runs import RunFolder

    run = RunFolder.open(path)
    policy = _same_model(run)
    return run, policy, cast(policy, recipe_from(run.config["recipe"]), run.config["seed"])


def _read(bank: str, names: Sequence[str], tasks: Sequence[Task], recipe: Recipe) -> list[Context]:
    """The contexts that the teacher is to read: those that are named, else the latest where the method reads one."""
    from cli import workflow
    from experience_bank import Bank
    from opcd_agents.errors import UsageError

    if recipe.contexts == "solution" and names:
        raise UsageError(f"wanted no --context, because contexts = 'solution' in the recipe, got {names[0]!r}")
    if recipe.contexts != "solution" and recipe.reads_context:
        names = names or ["latest"]
    if not names:
        return []
    if len(names) > 1 and recipe.contexts != "random":
        raise UsageError(f"wanted one --context, got {len(names)}; contexts = 'random' in a recipe draws from several")
    with Bank.open(bank, "r") as store:
        return [workflow.about(store.context(name), tasks) for name in names]


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
    """What is not as `run_config` and `stored_in` make it."""
    from cli.stored import ANCHORED, REPLAYED

    kinds = {"tasks": str, "model": str, "weights": str, "contexts": list, "recipe": dict, "seed": int, "track": list}
    if stored := {REPLAYED, ANCHORED} & config.keys():
        kinds |= {"bank": str} | dict.fromkeys(sorted(stored), list)
    wrong = [key for key, kind in kinds.items() if not isinstance(config.get(key), kind)]
    if not wrong and not all(
        isinstance(one, dict)
        and all(isinstance(cast("dict[str, Any]", one).get(key), str) for key in ("id", "scope", "text"))
        for one in config["contexts"]
    ):
        wrong = ["contexts"]
    return f"wanted {kinds[wrong[0]].__name__} for {wrong[0]!r}" if wrong else None
