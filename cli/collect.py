"""`opcd collect`: a model plays, the bank keeps. Every episode is durable as soon as it and those before it are over."""

from typing import Annotated

import typer

from cli.console import Progress, say, say_json, tell
from cli.options import Bank_, Embed, Json, Model, Retrieve, Seed, Tasks, check_reading

app = typer.Typer()


@app.command(epilog="Example: opcd collect house:7 --episodes 128 --bank bank.db")
def collect(
    tasks: Tasks,
    episodes: Annotated[int, typer.Option(min=1, help="How many episodes to play.")] = 128,
    split: Annotated[str, typer.Option(help="Which tasks: train, validation or test.")] = "train",
    model: Model = "pocket",
    context: Annotated[str, typer.Option(help="Play with this context of the bank: an id, a scope or latest.")] = "",
    retrieve: Retrieve = None,
    embed: Embed = None,
    bank: Bank_ = "bank.db",
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Let a model play tasks and keep the episodes in a bank."""
    import envs
    from cli import models, notes, workflow
    from experience_bank import Bank
    from opcd_agents.errors import EngineError
    from opcd_agents.scores import score

    check_reading(bank, context, retrieve, embed)
    chosen = workflow.split(envs.tasks(tasks), split)
    policy = models.player(model)
    read, remind = None, None
    if context:
        with Bank.open(bank, "r") as store:
            read = workflow.about(store.context(context), chosen)
    if retrieve:
        with Bank.open(bank, "r") as store:
            remind = notes.reminder(store, chosen[0].scope, retrieve, models.counter(policy), embed)
    with Bank.open(bank) as store, Progress("collect", episodes) as bar:
        role = "teacher" if read or remind else "student"
        played = workflow.gather(
            policy,
            chosen,
            episodes,
            seed=seed,
            context=read,
            remind=remind,
            keep=lambda episode: store.add_episode(episode, role),
            watch=lambda what, done, total: bar.update(done, total, what),
        )
        name, counts = store.name, store.counts()
    won = score(played)
    failed = len(played) - won.episodes
    if reason := notes.failures(played):
        tell(reason)
    if failed == len(played):
        raise EngineError("every episode failed")
    if json:
        say_json({"episodes": len(played), "failed": failed, **workflow.score_data(won), "bank": counts})
        return
    say(f"{len(played)} episodes, {won.wins} won; {name} now holds {counts['episodes']} episodes")
