"""`opcd demo`: the whole loop on one house, each step printed as the command it stands for."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Annotated

import typer

from cli.console import Progress, say, say_json
from cli.options import Json, Model, Recipe_, Seed

app = typer.Typer()

EPISODES = 128  # collected without notes
TEST_EPISODES = 128  # of each score


@app.command(epilog="Example: opcd demo --seed 3")
def demo(
    seed: Seed = 0,
    model: Model = "pocket",
    out: Annotated[Path | None, typer.Option(help="Folder of the run (default: runs/demo-SEED-TIME).")] = None,
    recipe: Recipe_ = None,
    json: Json = False,
) -> None:
    """Collect, make notes, distill and evaluate on one house; ends with a table and a report."""
    import envs
    from cli import models, workflow
    from cli.evaluate import compare, score_model, show
    from cli.notes import make_notes
    from cli.report import write_report
    from cli.training import run_config, train
    from experience_bank import Bank
    from opcd_agents.runs import RunFolder, make_vacant

    began = time.perf_counter()
    tasks, scope = envs.house_tasks(seed), f"house/{seed}"
    folder = out or Path("runs") / f"demo-{seed}-{time.strftime('%Y%m%d-%H%M%S')}"
    bank = folder / "bank.db"
    steps = models.recipe(model, recipe)
    base = models.policy(model)
    _clear_of(bank)
    make_vacant(folder)

    common = ["--model", model, "--bank", bank]
    step("collect", f"house:{seed}", *common, "--episodes", EPISODES, "--seed", seed)
    with Bank.open(bank) as store:
        with Progress("collect", EPISODES) as bar:
            workflow.gather(
                base,
                workflow.split(tasks, "train"),
                EPISODES,
                seed=seed,
                keep=store.add_episode,
                watch=lambda what, done, total: bar.update(done, total, what),
            )
        step("bank", "context", scope, *common)
        notes = make_notes(store, scope, base.renderer.count)
    say(notes.text)

    worlds = workflow.retained_worlds(base, seed)
    test = workflow.split(tasks, "test")
    before = score_model(base, test, worlds, TEST_EPISODES, seed, notes)

    chosen = ["--recipe", recipe] if recipe else []
    step("distill", f"house:{seed}", *common, "--context", scope, "--out", folder, "--seed", seed, *chosen)
    run = RunFolder.create(folder, run_config(f"house:{seed}", base, [notes], steps, seed))
    with Progress("distill", steps.updates) as bar:
        train(base, run, steps, bar)

    step("eval", f"house:{seed}", *common, "--context", scope, "--after", folder / "model", "--seed", seed)
    after = score_model(base, test, worlds, TEST_EPISODES, seed, None)
    result = compare(tasks, test, before, after, seed, time.perf_counter() - began)
    show(result)
    say(f"report: {write_report(run, result, before, after)}")
    if json:
        say_json(result.data())


def step(*words: object) -> None:
    """Say which command does the same as what comes next."""
    say(f"$ opcd {shlex.join(map(str, words))}")


def _clear_of(bank: Path) -> None:
    """A bank of an earlier demo would be added to, and other notes come of it."""
    from opcd_agents.errors import RunError

    if bank.exists():
        raise RunError(f"{bank} is there already; choose another --out")
