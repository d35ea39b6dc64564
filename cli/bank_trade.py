"""`opcd bank export | import | recover`: banks out into files, files in, and what a damaged bank still holds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from cli.console import say, say_json
from cli.options import Bank_, Json
from experience_bank import Bank
from opcd_agents.errors import BankError

app = typer.Typer()


@app.command(epilog="Example: opcd bank export bank.jsonl")
def export(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A file or folder that is not there yet.")],
    form: Annotated[
        str, typer.Option("--format", help="jsonl (all of the bank), chat, atif, parquet or minari.")
    ] = "jsonl",
    bank: Bank_ = "bank.db",
    as_json: Json = False,
) -> None:
    """Write a bank for other programs; jsonl brings all of it back."""
    from experience_bank import exchange

    with Bank.open(bank, "r") as opened:
        done = exchange.export(opened, path, form)
    _tell("exported", done.path, done.formats, done.counts, done.notes, as_json)


@app.command(name="import", epilog="Example: opcd bank import bank.jsonl --bank other.db")
def load(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A file, a folder, or an archive of files.")],
    form: Annotated[
        str | None,
        typer.Option(
            "--format", help="ace, atif, chat, jsonl, opcd, parquet or reasoningbank. Default: what it looks like."
        ),
    ] = None,
    trusted: Annotated[
        bool,
        typer.Option(
            "--trusted", help="Your own backup: also believe its tombstones, logs, votes, contexts and validations."
        ),
    ] = False,
    bank: Bank_ = "bank.db",
    as_json: Json = False,
) -> None:
    """Take in what others wrote, whole or not at all. Lessons of others wait in quarantine until they have proved themselves."""
    from experience_bank import exchange

    if not path.exists():
        raise BankError(f"wanted a file or folder to import, got {path}, which is not there")
    with Bank.open(bank) as opened:
        done = exchange.load(opened, path, form, trusted=trusted)
    _tell("imported", done.path, done.formats, done.counts, done.notes, as_json)


@app.command(epilog="Example: opcd bank recover bank.db saved.db")
def recover(
    damaged: Annotated[Path, typer.Argument(metavar="BANK", help="The damaged file; it is only read.")],
    target: Annotated[Path, typer.Argument(metavar="NEW", help="The bank to make of what is whole.")],
    as_json: Json = False,
) -> None:
    """Copy what is whole in a damaged bank into a new one, and say what is not."""
    from experience_bank.recover import recover as save

    done = save(damaged, target)
    if as_json:
        say_json(
            {
                "saved": dict(done.saved),
                "lost": list(done.lost),
                "unreadable": dict(done.unreadable),
                "notes": list(done.notes),
            }
        )
        return
    _tell("saved", target, (), done.saved, done.notes, as_json=False)
    if done.lost:
        say(
            f"lost for certain: {len(done.lost)} episodes: {', '.join(done.lost[:6])}{' ..' if len(done.lost) > 6 else ''}"
        )


def _tell(
    what: str, path: Path, forms: tuple[str, ...], counts: Mapping[str, int], notes: tuple[str, ...], as_json: bool
) -> None:
    rows = dict(counts)
    if as_json:
        say_json({"path": str(path), "formats": list(forms), "counts": rows, "notes": list(notes)})
        return
    said = ", ".join(f"{n} {table}" for table, n in rows.items() if n) or "nothing"
    say(f"{what} {said} ({path})")
    for note in notes:
        say(f"note: {note}", "dim")
