"""`opcd eval`: before, with context and after, beside chance, blindness and the optimum."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import Progress, say, say_json, say_table, tell
from cli.options import Bank_, Json, Model, Seed, Tasks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cli.workflow import Evaluation, World
    from opcd_agents.types import Context, Episode, Policy, Task

app = typer.Typer()


@app.command(name="eval", epilog="Example: opcd eval house:7 --context house/7 --bank bank.db --after runs/seven/model")
def evaluate(
    tasks: Tasks,
    model: Model = "pocket",
    after: Annotated[str, typer.Option(help="The model after distillation; without it: the same as --model.")] = "",
    context: Annotated[str, typer.Option(help="Context of the bank: an id, a scope or latest.")] = "latest",
    bank: Bank_ = "bank.db",
    split: Annotated[str, typer.Option(help="Which tasks: train, validation or test.")] = "test",
    episodes: Annotated[int, typer.Option(min=1, help="Episodes of each score.")] = 128,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Score a model without notes, with notes and after distillation."""
    import envs
    from cli import models, workflow
    from cli.notes import failures
    from experience_bank import Bank

    began = time.perf_counter()
    everything = envs.tasks(tasks)
    chosen = workflow.split(everything, split)
    with Bank.open(bank, "r") as store:
        notes = workflow.about(store.context(context), everything)
    base, student = models.player(model), models.player(after or model)
    with Progress("evaluate") as bar:
        worlds = workflow.retained_worlds(base, seed)
        before = score_model(base, chosen, worlds, episodes, seed, notes)
        bar.advance("with context")
        later = score_model(student, chosen, worlds, episodes, seed, None)
    for who, some in (("before", before), ("after", later)):
        if reason := failures([*some.bare, *some.informed, *some.retained]):
            tell(f"{who}: {reason}")
    result = compare(everything, chosen, before, later, seed, time.perf_counter() - began)
    show(result)
    if json:
        say_json(result.data())


class Played:
    """Episodes of one model: without the context, with it (teachers only), and in other worlds with theirs."""

    def __init__(self, bare: list[Episode], informed: list[Episode], retained: list[Episode]) -> None:
        self.bare = bare
        self.informed = informed
        self.retained = retained


def score_model(
    policy: Policy,
    tasks: Sequence[Task],
    worlds: Sequence[World],
    episodes: int,
    seed: int,
    context: Context | None,
) -> Played:
    """Play the tasks without and, given a context, with it; then the other worlds with their own contexts."""
    from cli import workflow

    bare = workflow.gather(policy, tasks, episodes, seed=seed)
    informed = workflow.gather(policy, tasks, episodes, seed=seed, context=context) if context else []
    retained = workflow.play_worlds(policy, worlds, episodes // 2, seed)
    return Played(bare, informed, retained)


def compare(
    everything: Sequence[Task], tasks: Sequence[Task], before: Played, after: Played, seed: int, seconds: float
) -> Evaluation:
    """Put the scores of both models beside the frame."""
    from cli import workflow
    from opcd_agents.scores import gap_closed, score

    scores = score(before.bare), score(before.informed), score(after.bare)
    frame = workflow.frame(everything, tasks, seed)
    return workflow.Evaluation(
        seed,
        *scores,
        frame["random"],
        frame["blind"],
        frame["optimal"],
        score(before.retained),
        score(after.retained),
        gap_closed(*scores, seed=seed),
        seconds,
    )


def show(result: Evaluation) -> None:
    """Print the table."""
    say_table(
        ("", "wins>", "episodes>", "rate>", "95 % interval>"),
        [(name, s.wins, s.episodes, f"{s.rate:.1%}", f"{s.low:.1%} to {s.high:.1%}") for name, s in result.rows()],
    )
    gap = result.gap
    if math.isnan(gap.value):
        say(f"no gap to close: with notes the model wins no more than without, {result.seconds:.0f} s")
        return
    say(f"gap closed: {gap.value:.2f} (95 % interval {gap.low:.2f} to {gap.high:.2f}), {result.seconds:.0f} s")
