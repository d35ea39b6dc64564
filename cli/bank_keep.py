"""`opcd bank verify | doctor | migrate | gc | forget | stats | replay`: banks kept whole, and looked at as a whole."""

from collections import Counter, defaultdict
from pathlib import Path
from typing import Annotated

import typer

from cli.console import say, say_json, say_table
from cli.options import Bank_, Json
from experience_bank import Bank
from experience_bank.bank import is_server
from experience_bank.health import examine
from opcd_agents.errors import BankError
from opcd_agents.types import Outcome

app = typer.Typer()

_BAR = 24  # cells of a bar


@app.command(epilog="Example: opcd bank verify --bank bank.db")
def verify(bank: Bank_ = "bank.db", as_json: Json = False) -> None:
    """Check that every episode and lesson is what it was when it was stored."""
    with Bank.open(bank, "r") as opened:
        bad, quarantined, digest, counts = opened.verify(), opened.quarantined(), opened.digest(), opened.counts()
        both = opened.two_sided()
    if as_json:
        found = {"damaged": bad, "quarantined": len(quarantined), "two_splits": both}
        say_json({**found, "digest": digest, "counts": counts})
    else:
        say(f"{counts['episodes']} episodes, {counts['lessons']} lessons; digest {digest}")
        for row in quarantined:
            say(f"in quarantine: {row['kind']} {row['name']}: {row['reason']}")
        if both:
            say(
                f"{len(both)} train episodes are of tasks that are validation or test here too: {', '.join(both[:6])}; "
                "nothing is learnt from their scopes until `opcd bank forget` has removed the false ones"
            )
    if bad:
        raise BankError(
            f"{len(bad)} no longer match what they were stored under: {', '.join(bad[:6])}; try `opcd bank doctor`"
        )


@app.command(epilog="Example: opcd bank doctor --bank bank.db")
def doctor(bank: Bank_ = "bank.db", as_json: Json = False) -> None:
    """Say in what state a bank and the SQLite beneath it are."""
    name, findings = examine(bank)
    if as_json:
        say_json(
            {"bank": name, **{what: text for what, text, _ in findings}, "well": all(well for *_, well in findings)}
        )
    else:
        say_table(("", "", ""), [(what, text, "" if well else "<- look here") for what, text, well in findings])
    if not all(well for *_, well in findings):
        raise BankError(f"{name} is not well; see above")


@app.command(epilog="Example: opcd bank migrate --bank bank.db")
def migrate(bank: Bank_ = "bank.db", as_json: Json = False) -> None:
    """Make a bank of an older version one of this version; a copy of the old one stays beside it."""
    if is_server(bank):
        Bank.open(bank, "r").close()
    elif not Path(bank).exists():
        raise BankError(f"no bank at {bank}; name another file")
    with Bank.open(bank) as opened:
        name, counts = opened.name, opened.counts()
    if as_json:
        say_json({"bank": name, "counts": counts})
        return
    say(f"{name} is of this version and holds {counts['episodes']} episodes")


@app.command(epilog="Example: opcd bank gc --bank bank.db")
def gc(bank: Bank_ = "bank.db", as_json: Json = False) -> None:
    """Give back the space of what was forgotten."""
    Bank.open(bank, "r").close()
    with Bank.open(bank) as opened:
        name, removed = opened.name, opened.compact()
    if as_json:
        say_json({"bank": name, "removed": removed})
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
        groups: dict[tuple[str, str, str, str], Counter[Outcome]] = defaultdict(Counter)
        roles = opened.roles()
        for key, episode in opened.episodes():
            notes = " with notes" if episode.provenance.context_id else ""
            who = (f"{episode.provenance.model}{notes}", roles[key])
            groups[episode.task.scope, str(episode.task.split), *who][episode.outcome] += 1
    rows = [
        {
            "scope": scope,
            "split": split,
            "player": player,
            "role": role,
            **{str(o): outcomes[o] for o in Outcome},
            "episodes": outcomes.total(),
        }
        for (scope, split, player, role), outcomes in sorted(groups.items())
    ]
    if as_json:
        say_json({"counts": counts, "groups": rows})
        return
    say(", ".join(f"{number} {what}" for what, number in counts.items()))
    bars = [_bar(groups[key]) for key in sorted(groups)]
    say_table(
        ("scope", "split", "player", "role", "episodes>", "won>", "failed>", f"{'won':<{_BAR // 3}}lost/out of turns"),
        [
            (*(row[name] for name in ("scope", "split", "player", "role", "episodes")), row["won"], row["failed"], bar)
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


def _bar(outcomes: Counter[Outcome]) -> str:
    """Won and lost among the episodes that were played to an end."""
    ended = outcomes.total() - outcomes[Outcome.FAILED]
    won = round(_BAR * outcomes[Outcome.WON] / max(ended, 1))
    if not ended:
        return ""
    return "\u2588" * won + "\u2591" * (_BAR - won)
