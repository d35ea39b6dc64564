"""`opcd demo`: the whole loop on one house, each step printed as the command it stands for."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from cli.console import Progress, say, say_json
from cli.options import Json, Model, Seed

app = typer.Typer()

EPISODES = 128  # collected without notes
TEST_EPISODES = 128  # of each score


@app.command(epilog="Example: opcd demo --seed 3")
def demo(
    seed: Seed = 0,
    model: Model = "pocket",
    out: Annotated[Path | None, typer.Option(help="Folder of the run (default: runs/demo-SEED-TIME).")] = None,
    method: Annotated[str, typer.Option(help="opcd, off-policy or sft: what trains the student.")] = "opcd",
    json: Json = False,
) -> None:
    """Collect, make notes, distill and evaluate on one house; ends with a table and a report."""
    import envs
    from cli import models, workflow
    from cli.distill import run_config, train
    from cli.evaluate import compare, score_model, show
    from cli.report import write_report
    from experience_bank import Bank
    from opcd_agents.recipe import recipe_from
    from opcd_agents.runs import RunFolder, make_vacant

    began = time.perf_counter()
    tasks, scope = envs.house_tasks(seed), f"house/{seed}"
    folder = out or Path("runs") / f"demo-{seed}-{time.strftime('%Y%m%d-%H%M%S')}"
    bank = folder / "bank.db"
    recipe = recipe_from({"method": method}, models.recipe(model))
    base = models.policy(model)
    make_vacant(folder)

    step(f"opcd collect house:{seed} --model {model} --episodes {EPISODES} --bank {bank} --seed {seed}")
    with Bank.open(bank) as store:
        with Progress("collect", EPISODES) as bar:
            workflow.gather(
                base,
                workflow.split(tasks, "train"),
                EPISODES,
                seed=seed,
                keep=store.add_episodes,
                watch=lambda what, done, total: bar.update(done, total, what),
            )
        step(f"opcd bank context {scope} --bank {bank}")
        notes = workflow.make_notes(store, scope, base.renderer.count)
    say(notes.text)

    worlds = workflow.retained_worlds(base, seed)
    test = workflow.split(tasks, "test")
    before = score_model(base, test, worlds, TEST_EPISODES, seed, notes)

    step(f"opcd distill house:{seed} --model {model} --context {scope} --bank {bank} --out {folder}")
    run = RunFolder.create(folder, run_config(f"house:{seed}", model, notes, recipe, seed))
    with Progress("distill", recipe.updates) as bar:
        train(base, run, recipe, bar)

    step(
        f"opcd eval house:{seed} --model {model} --context {scope} --bank {bank} --after {folder / 'model'} --seed {seed}"
    )
    after = score_model(base, test, worlds, TEST_EPISODES, seed, None)
    result = compare(tasks, test, before, after, seed, time.perf_counter() - began)
    show(result)
    say(f"report: {write_report(run, result, before, after)}")
    if json:
        say_json(result.data())


def step(command: str) -> None:
    """Say which command does what comes next."""
    say(f"$ {command}")
