"""`opcd rounds`: collect, make notes, distill; then the same with what came of it (OEL, arXiv 2603.16856).

Each round's teacher is the model that the round begins with, and each round is compared with the first model: iterated distillation is known
to decay on some tasks. A round that is whole is not done again, so a stopped command goes on where it was.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import Progress, say, say_json, say_table, tell
from cli.options import Json, Model, Recipe_, Seed, Tasks

if TYPE_CHECKING:
    from opcd_agents.policies.huggingface import HuggingFacePolicy
    from opcd_agents.recipe import Recipe
    from opcd_agents.types import Score

app = typer.Typer()


@app.command(epilog="Example: opcd rounds house:7 --rounds 2 --out runs/rounds")
def rounds(
    tasks: Tasks,
    count: Annotated[int, typer.Option("--rounds", min=1, help="How many.")] = 3,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes collected in each round.")] = 128,
    test: Annotated[int, typer.Option(min=1, help="Test episodes of each score.")] = 128,
    model: Model = "pocket",
    recipe: Recipe_ = None,
    out: Annotated[Path, typer.Option(help="Folder of the rounds; one that holds some goes on.")] = Path("runs/rounds"),
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Learn from experience again and again; scores without notes, on test tasks, after every round."""
    import envs
    from cli import models, workflow
    from opcd_agents.types import Split

    chosen, steps = envs.tasks(tasks), models.recipe(model, recipe)
    held_out = workflow.split(chosen, Split.TEST)
    name, student = model, models.policy(model, steps)
    scores = [_score(student, held_out, test, seed, 0)]
    for number in range(1, count + 1):
        name = str(out / f"round-{number}" / "model")
        if not Path(name).is_dir():
            _round(tasks, number, student, steps, out, episodes, seed)
        student = models.policy(name, steps)
        scores.append(_score(student, held_out, test, seed, number))
    rows = [{"round": number, **workflow.score_data(one)} for number, one in enumerate(scores)]
    if json:
        say_json({"tasks": tasks, "rounds": rows, "model": name})
        return
    say_table(
        ("round", "won, %>", "95 %"),
        [(r["round"], f"{100 * r['rate']:.1f}", f"{100 * r['low']:.1f} to {100 * r['high']:.1f}") for r in rows],
    )
    say(f"model: {name}")


def _round(
    tasks: str, number: int, student: HuggingFacePolicy, recipe: Recipe, out: Path, episodes: int, seed: int
) -> None:
    """Collect with a student, make notes of all rounds' episodes so far, and distill them into it."""
    import envs
    from cli import workflow
    from cli.notes import make_notes
    from cli.training import begun, run_config, stored_in, train
    from experience_bank import Bank
    from opcd_agents.recipe import recipe_from
    from opcd_agents.runs import RunFolder
    from opcd_agents.types import Split

    folder, bank = out / f"round-{number}", out / "bank.db"
    resume = (folder / "config.json").is_file()
    if not resume:
        chosen = envs.tasks(tasks)
        with Bank.open(bank) as store, Progress(f"round {number}: collect", episodes) as bar:
            workflow.gather(
                student, workflow.split(chosen, Split.TRAIN), episodes, seed=seed + 1000 * number, keep=store.add_episode,
                watch=lambda what, done, total: bar.update(done, total, what),
            )  # fmt: skip
            context = make_notes(store, chosen[0].scope, student.renderer.count, tokenizer=student.name)
        config = run_config(tasks, student, [context], recipe, seed + number)
        begun(folder, config | stored_in(str(bank), chosen[0].scope, recipe))
    run = RunFolder.open(folder)
    steps = recipe_from(run.config["recipe"])
    with Progress(f"round {number}: distill", steps.updates) as bar:
        train(student, run, steps, bar, resume=resume)


def _score(policy: HuggingFacePolicy, tasks: Any, episodes: int, seed: int, number: int) -> Score:
    from cli import workflow
    from opcd_agents.scores import score

    with Progress(f"round {number}: score", episodes) as bar:
        found = score(
            workflow.gather(policy, tasks, episodes, seed=seed, watch=lambda what, n, total: bar.update(n, total, what))
        )
    tell(f"round {number}: {found.rate:.0%} won without notes")
    return found
