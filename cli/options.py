"""Arguments that several commands share, so that they are spelt and explained the same."""

from pathlib import Path
from typing import Annotated

import typer

from experience_bank.reminders import When
from experience_bank.shards import PREFIX
from opcd_agents.errors import UsageError

Tasks = Annotated[str, typer.Argument(help="What to play, such as house:7 or operator:3#4; see `opcd envs`.")]
Scope = Annotated[str, typer.Argument(metavar="SCOPE", help="What it is about, such as house/7.")]
Model = Annotated[str, typer.Option(help="pocket, pocket-large, a model folder, a name on the hub, or http://HOST/v1.")]
Bank_ = Annotated[
    str, typer.Option(help="The bank: a file, postgresql://USER@HOST/DATABASE, or shards:DIR to collect into.")
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of all chance.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]
Retrieve = Annotated[
    When | None,
    typer.Option(help="Put fitting lessons of the bank in front of what is seen: once a task, or at each state."),
]
Embed = Annotated[
    str | None,
    typer.Option(metavar="MODEL", help="Let a sentence-transformers model choose them (default: their words)."),
]
Recipe_ = Annotated[Path | None, typer.Option("--recipe", help="A recipe file (default: what suits the model).")]


def check_reading(bank: str, context: str | None, retrieve: When | None, embed: str | None) -> None:
    """Refuse options about what a player reads that cannot be meant.

    Raises:
        UsageError: A model for reminders without reminders, or shards, which nobody reads before they are merged.
    """
    if embed and not retrieve:
        raise UsageError(f"wanted --retrieve task or state with --embed {embed}, got none")
    if bank.startswith(PREFIX) and (context or retrieve):
        raise UsageError(f"{bank} is only written to; merge it (`opcd bank merge {bank}`) and read from that bank")
