"""`opcd bank extract | context`: from episodes to lessons, from lessons to contexts."""

from collections import Counter
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli.console import say, say_json
from cli.models import token_counter
from cli.options import Bank_, Json, Model, Scope, Seed
from experience_bank import Bank, system_prompt
from experience_bank.extract import extract as learn
from opcd_agents.errors import ModelError, UsageError
from opcd_agents.types import Context

app = typer.Typer()


class Style(StrEnum):
    """How lessons become text."""

    NOTES = "notes"
    DOCUMENT = "document"
    RAW = "raw"


class Scheme(StrEnum):
    """How a language model is asked for lessons."""

    ITEMS = "items"
    OPERATIONS = "operations"
    CRITIQUE = "critique"
    CHAINS = "chains"


@app.command(epilog="Example: opcd bank extract house/7")
def extract(
    scope: Scope,
    writer: Annotated[str | None, typer.Option(help="Let this model write lessons too (default: no model).")] = None,
    scheme: Annotated[
        Scheme,
        typer.Option(
            help="items: from each episode (OPCD); operations: rules with counters (ExpeL); critique: from won and lost tries; "
            "chains: OPCD's pool, a context for each step of each chain."
        ),
    ] = Scheme.ITEMS,
    chains: Annotated[int, typer.Option(min=1, help="Chains of the pool.")] = 10,
    steps: Annotated[int, typer.Option(min=1, help="Episodes that each chain reads.")] = 30,
    budget: Annotated[int, typer.Option(min=1, help="Most tokens of a context of the pool.")] = 8192,
    previous: Annotated[
        bool, typer.Option("--previous", help="Show each chain what it has written so far (OEL, from 4B up).")
    ] = False,
    prompts: Annotated[Path | None, typer.Option(help="A folder of prompts that replace the packaged ones.")] = None,
    bank: Bank_ = "bank.db",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Learn lessons from the train episodes on a scope; without a language model, unless --writer names one."""
    from cli import notes

    if scheme is Scheme.CHAINS and writer is None:
        raise UsageError("wanted --writer MODEL to write the chains, got none")
    Bank.open(bank, "r").close()
    failed: list[str] = []
    made = 0
    with Bank.open(bank) as opened:
        known = {key for key, _ in opened.lessons(status=None)}
        found = learn(notes.to_learn_from(opened, scope))
        opened.add_lessons(found)
        if writer and scheme is Scheme.CHAINS:
            seeds = range(seed, seed + chains)
            by = notes.writer_of(writer, prompts)
            failed, made = notes.write_pool(opened, scope, by, seeds, steps, budget, previous=previous)
        elif writer:
            failed = notes.write_lessons(opened, scope, notes.writer_of(writer, prompts), scheme, seed)
        all_of_it = opened.lessons_for(scope, status=None)
    kinds = Counter(lesson.kind for _, lesson in all_of_it)
    new = sum(key not in known for key, _ in all_of_it)
    pool = {"pool": made} if scheme is Scheme.CHAINS else {}
    if as_json:
        counts = {"lessons": len(all_of_it), "new": new, "kinds": dict(kinds)}
        say_json({"scope": scope, **counts, **pool, "failed": failed})
    else:
        said = ", ".join(f"{n} {k}" for k, n in kinds.items())
        say(f"{len(all_of_it)} lessons on {scope}, {new} of them new: {said}")
        if failed:
            say(f"{len(failed)} requests to {writer} gave no lessons, such as: {failed[0]}")
        if made:
            say(f"{made} contexts in the pool; `opcd bank validate` with --setting filtered or test-time tries them")
    if pool and not made:
        raise ModelError(f"the pool is empty: no reply of {writer} gave a context; use a model that follows the prompt")


@app.command(epilog="Example: opcd bank context house/7 --budget 512")
def context(
    scope: Scope,
    budget: Annotated[int, typer.Option(min=1, help="Most tokens the notes may have.")] = 512,
    text: Annotated[Path | None, typer.Option(help="A file whose text is the context, instead of notes.")] = None,
    style: Annotated[
        Style, typer.Option(help="notes: for pocket models; document: for others; raw: episodes as they are.")
    ] = Style.NOTES,
    quarantined: Annotated[
        bool,
        typer.Option(
            "--quarantined", help="Draw on lessons in quarantine too: `validate` releases those that prove good."
        ),
    ] = False,
    model: Model = "pocket",
    bank: Bank_ = "bank.db",
    as_json: Json = False,
) -> None:
    """Make notes on a scope from its train episodes, or take a text of your own.

    They are stored as the next version of the scope's context, and printed. The budget is counted in tokens of the model
    that will read them.
    """
    from cli.notes import make_notes

    if quarantined and (text or style is Style.RAW):
        raise UsageError("wanted --quarantined with lessons, got it with a text or raw episodes; leave it out")
    count = token_counter(model)
    own = None if text is None else system_prompt(_read(text), scope, count, model)
    if own is not None and own.tokens > budget:
        raise UsageError(f"wanted a text of at most {budget} tokens, got {own.tokens}; shorten it or raise --budget")
    if own is None:
        Bank.open(bank, "r").close()  # where notes are wanted, a bank that is not there is an error
    with Bank.open(bank) as opened:
        made = (
            opened.add_context(own)
            if own
            else make_notes(opened, scope, count, budget, model, style, quarantined=quarantined)
        )
    if as_json:
        say_json({"kind": "context", **asdict(made)})
        return
    show_context(made)


def show_context(made: Context) -> None:
    """Print a context."""
    say(f"context {made.id}: version {made.version} of {made.scope}, {made.tokens} tokens, {made.source}", "bold")
    say(made.text)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the text {path}: {error}") from error
