"""`opcd bank merge`: other banks and shards into one, once or as they come."""

import time
from collections import Counter
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from cli.console import say, say_json, tell
from cli.options import Bank_, Json
from experience_bank import Bank
from experience_bank.ingest import Ingester
from experience_bank.shards import PREFIX, shards
from opcd_agents.errors import UsageError

app = typer.Typer()


@app.command(epilog="Example: opcd bank merge host1.db shards:runs/shards --bank bank.db")
def merge(
    sources: Annotated[
        list[str], typer.Argument(metavar="BANK...", help="Banks, or shards:DIR for all closed shards in it.")
    ],
    abandoned: Annotated[bool, typer.Option("--abandoned", help="Also shards whose collectors were killed.")] = False,
    watch: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Look into shards:DIR so often, until interrupted; 0: once.")
    ] = 0,
    bank: Bank_ = "bank.db",
    as_json: Json = False,
) -> None:
    """Add what other banks hold: a union, in either order and however often."""
    if watch:
        _watch(sources, bank, watch, abandoned, as_json)
    paths = [path for source in sources for path in _banks(source, abandoned)]
    new: Counter[str] = Counter()
    for path in paths:  # a source that is none must not make a bank
        Bank.open(path, "r").close()
    with Bank.open(bank) as target:
        for path in paths:
            with Bank.open(path, "r") as source:
                new.update(target.merge(source))
        name, counts = target.name, target.counts()
    if as_json:
        say_json({"merged": len(paths), "new": dict(new), "bank": counts})
        return
    said = ", ".join(f"{number} {what}" for what, number in new.items() if number) or "nothing new"
    say(f"{len(paths)} banks merged: {said}; {name} now holds {counts['episodes']} episodes")


def _watch(sources: list[str], bank: str, seconds: float, abandoned: bool, as_json: bool) -> NoReturn:
    """Take in shards as they are handed over, a line for each time there were some; ends by an interrupt."""
    if not all(source.startswith(PREFIX) for source in sources):
        raise UsageError("wanted only shards:DIR to watch, got another bank; merge it without --watch")
    folders = [Path(source.removeprefix(PREFIX)) for source in sources]
    for folder in folders:  # a folder that is none must not make a bank
        shards(folder)
    ingesters = [Ingester(folder, abandoned) for folder in folders]
    told: set[str] = set()
    with Bank.open(bank) as target:
        while True:
            taken, new = sum(i.taken for i in ingesters), Counter[str]()
            for ingester in ingesters:
                new.update(ingester.take(target))
            merged = sum(i.taken for i in ingesters) - taken
            refused = {f"{name}: {why}" for i in ingesters for name, why in i.refused.items()}
            _tell_taken(target, merged, new, sorted(refused - told), as_json)
            told = refused
            time.sleep(seconds)


def _tell_taken(target: Bank, merged: int, new: Counter[str], refused: list[str], as_json: bool) -> None:
    """Say what one look brought, if it brought anything."""
    if as_json and (merged or refused):
        say_json({"merged": merged, "new": dict(new), "left": refused, "bank": target.counts()})
    if as_json:
        return
    if merged:
        apart = f", {new['quarantine']} rows into quarantine" if new["quarantine"] else ""
        tell(
            f"{merged} shards merged: {new['episodes']} new episodes{apart}; "
            f"{target.name} holds {target.counts()['episodes']}"
        )
    for line in refused:
        tell(f"left for now: {line}")


def _banks(source: str, abandoned: bool) -> list[str]:
    if not source.startswith(PREFIX):
        return [source]
    return [str(path) for path in shards(Path(source.removeprefix(PREFIX)), abandoned)]
