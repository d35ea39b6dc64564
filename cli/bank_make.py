"""`opcd bank extract | consolidate | context | validate | bless`: from episodes to a context that has proved itself."""

from collections import Counter
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli.console import Progress, say, say_json, say_table
from cli.models import token_counter
from cli.options import Bank_, Json, Model, Seed, Tasks
from experience_bank import Bank, system_prompt
from experience_bank.dedupe import duplicates
from experience_bank.extract import extract as learn
from experience_bank.lessons import Op
from opcd_agents.errors import UsageError
from opcd_agents.types import Context, Split

app = typer.Typer()

Scope = Annotated[str, typer.Argument(metavar="SCOPE", help="What it is about, such as house/7.")]


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


class Setting(StrEnum):
    """How the best context is chosen."""

    PROVED = "proved"
    FILTERED = "filtered"
    TEST_TIME = "test-time"


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
    with Bank.open(bank) as opened:
        known = {key for key, _ in opened.lessons(status=None)}
        found = learn(opened.episodes(scope=scope, split=Split.TRAIN))
        opened.add_lessons(found)
        if writer and scheme is Scheme.CHAINS:
            seeds = range(seed, seed + chains)
            by = notes.writer_of(writer, prompts)
            failed = notes.write_pool(opened, scope, by, seeds, steps, budget, previous=previous)
        elif writer:
            failed = notes.write_lessons(opened, scope, notes.writer_of(writer, prompts), scheme, seed)
        all_of_it = opened.lessons(scope, status=None)
    kinds = Counter(lesson.kind for _, lesson in all_of_it)
    new = sum(key not in known for key, _ in all_of_it)
    if as_json:
        say_json({"scope": scope, "lessons": len(all_of_it), "new": new, "kinds": dict(kinds), "failed": failed})
        return
    say(f"{len(all_of_it)} lessons on {scope}, {new} of them new: {', '.join(f'{n} {k}' for k, n in kinds.items())}")
    if failed:
        say(f"{len(failed)} replies of {writer} were not in the form that was asked for, such as: {failed[0]}")


@app.command(epilog="Example: opcd bank consolidate house/7 --dry-run")
def consolidate(
    scope: Scope,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be merged.")] = False,
    bank: Bank_ = "bank.db",
    as_json: Json = False,
) -> None:
    """Let one lesson stand for others that say the same; what was merged can be restored."""
    with Bank.open(bank, "r" if dry_run else "w") as opened:
        lessons = dict(opened.lessons(scope))
        twins = duplicates(list(lessons.items()), opened.apart(), opened.votes())
        for key, stays in () if dry_run else twins.items():
            opened.note(key, Op.REPLACE, "says the same", actor="consolidate", other=stays)
    if as_json:
        say_json({"scope": scope, "lessons": len(lessons), "merged": twins})
        return
    say(f"{len(twins)} of {len(lessons)} lessons on {scope} {'would be' if dry_run else 'were'} merged into another")
    if twins:
        rows = [(key, lessons[key].statement, stays, lessons[stays].statement) for key, stays in twins.items()]
        say_table(("id", "says", "stays", "which says"), rows)


@app.command(epilog="Example: opcd bank context house/7 --budget 512")
def context(
    scope: Scope,
    budget: Annotated[int, typer.Option(min=1, help="Most tokens the notes may have.")] = 512,
    text: Annotated[Path | None, typer.Option(help="A file whose text is the context, instead of notes.")] = None,
    style: Annotated[
        Style, typer.Option(help="notes: for pocket models; document: for others; raw: episodes as they are.")
    ] = Style.NOTES,
    model: Model = "pocket",
    bank: Bank_ = "bank.db",
    as_json: Json = False,
) -> None:
    """Make notes on a scope from its train episodes, or take a text of your own.

    They are stored as the next version of the scope's context, and printed. The budget is counted in tokens of the model
    that will read them.
    """
    from cli.notes import make_notes

    count = token_counter(model)
    own = None if text is None else system_prompt(_read(text), scope, count, model)
    if own is not None and own.tokens > budget:
        raise UsageError(f"wanted a text of at most {budget} tokens, got {own.tokens}; shorten it or raise --budget")
    if own is None:
        Bank.open(bank, "r").close()  # where notes are wanted, a bank that is not there is an error
    with Bank.open(bank) as opened:
        made = opened.add_context(own) if own else make_notes(opened, scope, count, budget, model, style)
    if as_json:
        say_json({"kind": "context", **asdict(made)})
        return
    show_context(made)


@app.command(epilog="Example: opcd bank validate house:7 --episodes 48")
def validate(
    tasks: Tasks,
    contexts: Annotated[
        list[str] | None, typer.Option("--context", help="A context; may be given again. Default: all on the scope.")
    ] = None,
    episodes: Annotated[int, typer.Option(min=2, help="Episodes with each context, and as many without.")] = 48,
    split: Annotated[Split, typer.Option(help="Which tasks; only validation may choose.")] = Split.VALIDATION,
    setting: Annotated[
        Setting,
        typer.Option(
            help="proved: bless the best whose interval lies above nought; filtered: the best of the pool of chains, as OPCD "
            "does; test-time: three of the pool at step 10, by chance, and their mean."
        ),
    ] = Setting.PROVED,
    model: Model = "pocket",
    bank: Bank_ = "bank.db",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Play with and without each context, report the gap, and bless the best that has proved itself."""
    import envs
    from cli import models, notes, workflow
    from experience_bank.chains import fullest, spread
    from experience_bank.validation import best, front, refuse_split

    refuse_split(split)
    chosen = workflow.split(envs.tasks(tasks), split)
    scope = chosen[0].scope
    with Bank.open(bank) as opened:
        named = [opened.context(name) for name in contexts or ()] or _candidates(opened, scope, setting, seed)
        if not named:
            raise UsageError(
                f"wanted contexts on {scope} to try, found none; make one with `opcd bank context {scope}`"
            )
        policy = models.policy(model)
        with Progress("validate", episodes * (len(named) + 1)) as bar:
            found = notes.validate(opened, policy, chosen, named, episodes, seed, bar)
        choose = {Setting.PROVED: best, Setting.FILTERED: fullest}
        winner = choose[setting](found) if setting in choose else None
        for one in named:
            if one.id == winner and opened.blessed(scope) != one:
                opened.bless(one, f"the best of {len(named)} on {episodes} validation episodes ({setting})")
    rows = notes.validation_rows(named, found, front(found), winner)
    if as_json:
        say_json(
            {"scope": scope, "split": str(split), "setting": str(setting), "blessed": winner, "contexts": rows}
            | dict(zip(("mean", "deviation"), spread(found), strict=True))
        )
        return
    say_table(
        [head if i in (0, 5, 6) else f"{head}>" for i, head in enumerate(rows[0])], [list(r.values()) for r in rows]
    )
    if setting is Setting.TEST_TIME:
        mean, deviation = spread(found)
        say(f"{len(found)} of the pool at step 10: {100 * mean:.1f} ± {100 * deviation:.1f} % won")
        return
    say(f"blessed: {winner}" if winner else "none is surely better than no context; nothing was blessed")


@app.command(epilog="Example: opcd bank bless 3f2a91 --reason 'read it through'")
def bless(
    name: Annotated[str, typer.Argument(metavar="CONTEXT", help="A context: its id, a scope or latest.")],
    reason: Annotated[str, typer.Option(help="Why, for the log.")] = "by hand",
    bank: Bank_ = "bank.db",
    as_json: Json = False,
) -> None:
    """Mark a context as the one that its scope's name stands for."""
    Bank.open(bank, "r").close()
    with Bank.open(bank) as opened:
        chosen = opened.context(name)
        opened.bless(chosen, reason)
    if as_json:
        say_json({"blessed": chosen.id, "scope": chosen.scope})
        return
    say(f"{chosen.scope} now stands for context {chosen.id} (version {chosen.version})")


def show_context(made: Context) -> None:
    """Print a context."""
    say(f"context {made.id}: version {made.version} of {made.scope}, {made.tokens} tokens, {made.source}", "bold")
    say(made.text)


def _candidates(bank: Bank, scope: str, setting: Setting, seed: int) -> list[Context]:
    """Which contexts are tried where none is named."""
    from experience_bank.chains import drawn, pool

    if setting is Setting.PROVED:
        return bank.contexts(scope)
    links = pool(bank, scope)
    if not links:
        raise UsageError(
            f"wanted a pool of chains on {scope}, found none; write one with `opcd bank extract {scope} --scheme chains --writer MODEL`"
        )
    return (
        drawn(links, seed=seed)
        if setting is Setting.TEST_TIME
        else list({x.context.id: x.context for x in links}.values())
    )


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the text {path}: {error}") from error
