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
    from collections.abc import Sequence

    from opcd_agents.policies.huggingface import HuggingFacePolicy
    from opcd_agents.recipe import Recipe
    from opcd_agents.types import Episode, Score, Task

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
    from cli.training import cast, check_tasks, run_config
    from opcd_agents.learner.parallel import found
    from opcd_agents.types import Split

    chosen, steps = envs.tasks(tasks), models.recipe(model, recipe)
    check_tasks(chosen, steps)
    cast(models.policy(model, steps), steps, seed)  # who is missing is told before anything is played
    held_out = workflow.split(chosen, Split.TEST)
    name, student, workers = model, models.policy(model, steps), found()
    _refuse_others(out, count, run_config(tasks, student, [], steps, seed))
    scores = [_score(student, held_out, test, seed, 0)]
    for number in range(1, count + 1):
        name = str(out / f"round-{number}" / "model")
        if not Path(name).is_dir():
            _round(tasks, number, student, steps, out, episodes, seed)
        student = models.policy(name, steps)
        scores.append(_score(student, held_out, test, seed, number))
    if workers.rank:  # the first process speaks for all
        return
    rows = [{"round": number, **workflow.score_data(one)} for number, one in enumerate(scores)]
    if json:
        say_json({"tasks": tasks, "rounds": rows, "model": name})
        return
    say_table(
        ("round", "won, %>", "95 %"),
        [(r["round"], f"{100 * r['rate']:.1f}", f"{100 * r['low']:.1f} to {100 * r['high']:.1f}") for r in rows],
    )
    say(f"model: {name}")


def _refuse_others(out: Path, count: int, mine: dict[str, Any]) -> None:
    """Refuse a folder whose rounds were asked for otherwise: their scores would be told as those of this command.

    Args:
        out: Folder of the rounds.
        count: How many are looked at.
        mine: The config of a run as this command would have it, with the seed of all rounds.

    Raises:
        RunError: A round that is there differs.
    """
    from opcd_agents.errors import RunError
    from opcd_agents.runs import RunFolder

    for number in range(1, count + 1):
        folder = out / f"round-{number}"
        if not (folder / "config.json").is_file():
            continue
        there = RunFolder.open(folder).config
        same = ("tasks", "recipe", *(("weights",) if number == 1 else ()))  # each later one begins with the one before
        wanted = {key: mine[key] for key in same} | {"seed": mine["seed"] + number}
        if other := [key for key in wanted if there.get(key) != wanted[key]]:
            raise RunError(f"{folder} was begun with another {other[0]}; go on as it began, or choose another --out")


def _round(
    tasks: str, number: int, student: HuggingFacePolicy, recipe: Recipe, out: Path, episodes: int, seed: int
) -> None:
    """Collect with a student, make notes of all rounds' episodes so far, and distill them into it.

    Where several processes share the command, each plays its share, and the first one keeps the bank.
    """
    import envs
    from cli import workflow
    from cli.training import begun, cast, preflight, train
    from opcd_agents.learner.parallel import found
    from opcd_agents.recipe import recipe_from
    from opcd_agents.runs import RunFolder
    from opcd_agents.types import Split

    folder = out / f"round-{number}"
    resume = (folder / "config.json").is_file()
    found().wait()  # all have looked before the first one makes it
    if not resume:
        mine = workflow.split(envs.tasks(tasks), Split.TRAIN)
        played = _played(student, mine, episodes, seed + 1000 * number, f"round {number}: collect")
        first = found().rank == 0
        begun(folder, _noted(tasks, out / "bank.db", played, student, recipe, seed + number) if first else {})
    run = RunFolder.open(folder)
    steps = recipe_from(run.config["recipe"])
    roles = cast(student, steps, run.config["seed"])
    preflight(roles.player, run)
    with Progress(f"round {number}: distill", steps.updates) as bar:
        train(student, run, steps, bar, resume=resume, roles=roles)


def _noted(
    tasks: str, bank: Path, played: Sequence[Episode], student: HuggingFacePolicy, recipe: Recipe, seed: int
) -> dict[str, Any]:
    """Keep what was played, make notes of it and of what was there; the config of a run that learns them.

    A command that was stopped in here had kept some of it: what is played again counts once, or it would be evidence twice.
    """
    import envs
    from cli.notes import make_notes
    from cli.stored import stored_in
    from cli.training import run_config
    from experience_bank import Bank
    from opcd_agents.types import Split

    scope = envs.tasks(tasks)[0].scope
    with Bank.open(bank) as store:
        scopes = {episode.task.scope for episode in played}
        kept = {store.episode(key)[1].provenance for one in scopes for key in store.episode_ids(one, Split.TRAIN)}
        for episode in played:
            if episode.provenance not in kept:
                store.add_episode(episode)
        context = make_notes(store, scope, student.renderer.count, tokenizer=student.name)
    return run_config(tasks, student, [context], recipe, seed) | stored_in(str(bank), scope, recipe)


def _played(policy: HuggingFacePolicy, tasks: Sequence[Task], episodes: int, seed: int, what: str) -> list[Episode]:
    """Episodes without notes, played by all processes together; each gets all of them."""
    from cli import workflow
    from opcd_agents.learner.parallel import found

    workers = found()
    with Progress(what, episodes) as bar:
        mine = workflow.gather(
            policy,
            tasks,
            episodes,
            seed=seed,
            share=workers.share,
            watch=lambda step, n, all_: bar.update(n, all_, step),
        )
    return workers.together(mine)


def _score(policy: HuggingFacePolicy, tasks: Sequence[Task], episodes: int, seed: int, number: int) -> Score:
    from opcd_agents.scores import score

    found = score(_played(policy, tasks, episodes, seed, f"round {number}: score"))
    tell(f"round {number}: {found.rate:.0%} won without notes")
    return found
