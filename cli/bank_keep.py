"""`opcd bank merge | verify | doctor | migrate | gc | forget | stats | replay`: banks kept whole, and looked at as a whole."""

import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from cli.console import say, say_json, say_table, tell
from cli.options import Bank_, Json
from experience_bank import Bank
from experience_bank.health import examine
from experience_bank.ingest import Ingester
from experience_bank.shards import PREFIX, shards
from opcd_agents.errors import BankError, UsageError
from opcd_agents.types import Outcome

app = typer.Typer()

_BAR = 24  # cells of a bar


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
        _watch(sources, bank, watch)
    paths = [path for source in sources for path in _banks(source, abandoned)]
    new: Counter[str] = Counter()
    for path in paths:  # a source that is none must not make a bank
        Bank.open(path, "r").close()
    with Bank.open(bank) as target:
        for path in paths:
            with Bank.open(path, "r") as source:
                new.update(target.merge(source))
        counts = target.counts()
    if as_json:
        say_json({"merged": len(paths), "new": dict(new), "bank": counts})
        return
    said = ", ".join(f"{number} {what}" for what, number in new.items() if number) or "nothing new"
    say(f"{len(paths)} banks merged: {said}; {bank} now holds {counts['episodes']} episodes")


@app.command(epilog="Example: opcd bank verify --bank bank.db")
def verify(bank: Bank_ = "bank.db", as_json: Json = False) -> None:
    """Check that every episode and lesson is what it was when it was stored."""
    with Bank.open(bank, "r") as opened:
        bad, quarantined, digest, counts = opened.verify(), opened.quarantined(), opened.digest(), opened.counts()
    if as_json:
        say_json({"damaged": bad, "quarantined": len(quarantined), "digest": digest, "counts": counts})
    else:
        say(f"{counts['episodes']} episodes, {counts['lessons']} lessons; digest {digest}")
        for row in quarantined:
            say(f"in quarantine: {row['kind']} {row['name']}: {row['reason']}")
    if bad:
        raise BankError(
            f"{len(bad)} no longer match what they were stored under: {', '.join(bad[:6])}; try `opcd bank doctor`"
        )


@app.command(epilog="Example: opcd bank doctor --bank bank.db")
def doctor(bank: Bank_ = "bank.db", as_json: Json = False) -> None:
    """Say in what state a bank and the SQLite beneath it are."""
    findings = examine(Path(bank))
    if as_json:
        say_json(
            {"bank": bank, **{name: text for name, text, _ in findings}, "well": all(well for *_, well in findings)}
        )
    else:
        say_table(("", "", ""), [(name, text, "" if well else "<- look here") for name, text, well in findings])
    if not all(well for *_, well in findings):
        raise BankError(f"{bank} is not well; see above")


@app.command(epilog="Example: opcd bank migrate --bank bank.db")
def migrate(bank: Bank_ = "bank.db", as_json: Json = False) -> None:
    """Make a bank of an older version one of this version; a copy of the old one stays beside it."""
    if not Path(bank).exists():
        raise BankError(f"no bank at {bank}; name another file")
    with Bank.open(bank) as opened:
        counts = opened.counts()
    if as_json:
        say_json({"bank": bank, "counts": counts})
        return
    say(f"{bank} is of this version and holds {counts['episodes']} episodes")


@app.command(epilog="Example: opcd bank gc --bank bank.db")
def gc(bank: Bank_ = "bank.db", as_json: Json = False) -> None:
    """Give back the space of what was forgotten."""
    Bank.open(bank, "r").close()
    with Bank.open(bank) as opened:
        removed = opened.compact()
    if as_json:
        say_json({"bank": bank, "removed": removed})
        return
    say(f"{removed} texts that nothing names any more were removed")


@app.command(epilog="Example: opcd bank forget 01JD3 --reason 'holds a name' --yes")
def forget(
    name: Annotated[str, typer.Argument(metavar="ID", help="Id of an episode, or its beginning.")],
    reason: Annotated[str, typer.Option(help="Why, for the tombstone.")],
    yes: Annotated[bool, typer.Option("--yes", help="It cannot be undone; say that you mean it.")] = False,
    bank: Bank_ = "bank.db",
    as_json: Json = False,
) -> None:
    """Remove an episode and what it showed, here and in every bank that this one is merged into."""
    with Bank.open(bank, "r") as opened:
        key, _ = opened.episode(name)
    if not yes:
        raise BankError(f"episode {key} would be gone for good; repeat with --yes")
    with Bank.open(bank) as opened:
        opened.forget(key, reason)
    if as_json:
        say_json({"forgotten": key})
        return
    say(f"episode {key} is forgotten; `opcd bank gc` gives its space back")


@app.command(epilog="Example: opcd bank stats --bank bank.db")
def stats(bank: Bank_ = "bank.db", as_json: Json = False) -> None:
    """Draw who played what, and how it went."""
    with Bank.open(bank, "r") as opened:
        counts = opened.counts()
        groups: dict[tuple[str, str, str], Counter[Outcome]] = defaultdict(Counter)
        for _, episode in opened.episodes():
            notes = " with notes" if episode.provenance.context_id else ""
            key = (episode.task.scope, str(episode.task.split), f"{episode.provenance.model}{notes}")
            groups[key][episode.outcome] += 1
    rows = [
        {
            "scope": scope,
            "split": split,
            "player": player,
            **{str(o): n for o, n in outcomes.items()},
            "episodes": outcomes.total(),
        }
        for (scope, split, player), outcomes in sorted(groups.items())
    ]
    if as_json:
        say_json({"counts": counts, "groups": rows})
        return
    say(", ".join(f"{number} {what}" for what, number in counts.items()))
    bars = [_bar(groups[key]) for key in sorted(groups)]
    say_table(
        ("scope", "split", "player", "episodes>", "won>", f"{'won':<{_BAR // 3}}lost/out of turns"),
        [
            (row["scope"], row["split"], row["player"], row["episodes"], row.get("won", 0), bar)
            for row, bar in zip(rows, bars, strict=True)
        ],
    )


@app.command(epilog="Example: opcd bank replay 01JD3")
def replay(
    name: Annotated[str, typer.Argument(metavar="ID", help="Id of an episode, or its beginning.")],
    bank: Bank_ = "bank.db",
    as_json: Json = False,
) -> None:
    """Say an episode's replies to its game again, and demand that all it shows is the same."""
    from cli.workflow import parting

    with Bank.open(bank, "r") as opened:
        key, episode = opened.episode(name)
    where = parting(episode)
    if as_json:
        say_json({"episode": key, "turns": len(episode.turns), "same": where is None, "parts_at": where})
    elif where is None:
        say(f"episode {key}: {len(episode.turns)} turns, all the same again")
    if where is not None:
        raise BankError(f"episode {key} parts at turn {where}: its game shows something else now")


def _watch(sources: list[str], bank: str, seconds: float) -> NoReturn:
    """Take in shards as they are handed over, a line for each time there were some; ends by an interrupt."""
    if not all(source.startswith(PREFIX) for source in sources):
        raise UsageError(
            f"wanted only shards:DIR to watch, got {', '.join(sources)}; merge other banks without --watch"
        )
    ingesters = [Ingester(Path(source.removeprefix(PREFIX))) for source in sources]
    told: set[str] = set()
    with Bank.open(bank) as target:
        while True:
            taken, new = sum(i.taken for i in ingesters), Counter[str]()
            for ingester in ingesters:
                new.update(ingester.take(target))
            if more := sum(i.taken for i in ingesters) - taken:
                tell(
                    f"{more} shards merged: {new['episodes']} new episodes; {bank} holds {target.counts()['episodes']}"
                )
            refused = {f"{name}: {why}" for i in ingesters for name, why in i.refused.items()}
            for line in sorted(refused - told):
                tell(f"left for now: {line}")
            told |= refused
            time.sleep(seconds)


def _banks(source: str, abandoned: bool) -> list[str]:
    if not source.startswith(PREFIX):
        return [source]
    return [str(path) for path in shards(Path(source.removeprefix(PREFIX)), abandoned)]


def _bar(outcomes: Counter[Outcome]) -> str:
    won = round(_BAR * outcomes[Outcome.WON] / max(outcomes.total(), 1))
    return "\u2588" * won + "\u2591" * (_BAR - won)
