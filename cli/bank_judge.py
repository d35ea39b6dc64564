"""`opcd bank consolidate | mark | validate | bless`: which lessons stay, and which context is to be used."""

from enum import StrEnum
from typing import Annotated

import typer

from cli.console import Progress, say, say_json, say_table
from cli.options import Bank_, Json, Model, Scope, Seed, Tasks
from experience_bank import Bank
from experience_bank.dedupe import duplicates
from experience_bank.lessons import Op, Status
from opcd_agents.errors import UsageError
from opcd_agents.types import Context, Split, Task

app = typer.Typer()


class Mark(StrEnum):
    """What a person may say of a lesson."""

    RETIRE = "retire"
    RESTORE = "restore"
    RELEASE = "release"
    APART = "apart"


class Setting(StrEnum):
    """How the best context is chosen."""

    PROVED = "proved"
    FILTERED = "filtered"
    TEST_TIME = "test-time"


@app.command(epilog="Example: opcd bank consolidate house/7 --dry-run")
def consolidate(
    scope: Scope,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be merged.")] = False,
    bank: Bank_ = "bank.db",
    as_json: Json = False,
) -> None:
    """Let one lesson stand for others that say the same; what was merged can be restored."""
    Bank.open(bank, "r").close()
    with Bank.open(bank, "r" if dry_run else "w") as opened:
        lessons = dict(opened.lessons_for(scope))
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


@app.command(epilog="Example: opcd bank mark 5c01e2 release --reason 'read it through'")
def mark(
    name: Annotated[str, typer.Argument(metavar="LESSON", help="Id of a lesson, or its beginning.")],
    what: Annotated[
        Mark,
        typer.Argument(
            help="retire: use it no more; restore: use it again; release: let it out of quarantine; apart: never merge it with --other."
        ),
    ],
    reason: Annotated[str, typer.Option(help="Why, for the log.")],
    other: Annotated[
        str | None, typer.Option(metavar="LESSON", help="The other lesson, of two that stay apart.")
    ] = None,
    bank: Bank_ = "bank.db",
    as_json: Json = False,
) -> None:
    """Say in the log of a lesson what is to become of it; nothing is deleted."""
    if (what is Mark.APART) != (other is not None):
        raise UsageError(f"wanted --other LESSON with apart and only there, got {what} with {other or 'none'}")
    Bank.open(bank, "r").close()
    with Bank.open(bank) as opened:
        key, lesson = opened.lesson(name)
        opened.note(key, Op(what), reason, other=other)
        now = opened.statuses()[key]
    if as_json:
        say_json({"lesson": key, "marked": str(what), "status": str(now)})
        return
    say(f"lesson {key} is {now}: {lesson.statement}")


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
    if contexts and setting is not Setting.PROVED:
        raise UsageError(f"--setting {setting} chooses from the pool of chains; leave out --context")
    chosen = workflow.split(envs.tasks(tasks), split)
    scope = chosen[0].scope
    Bank.open(bank, "r").close()
    with Bank.open(bank) as opened:
        drawn = _named(opened, contexts, chosen) if contexts else _candidates(opened, scope, setting, seed)
        if not drawn:
            raise UsageError(
                f"wanted contexts on {scope} to try, found none; make one with `opcd bank context {scope}`"
            )
        named = list({one.id: one for one in drawn}.values())
        policy = models.player(model)
        with Progress("validate", episodes * (len(named) + 1)) as bar:
            found = notes.validate(opened, policy, chosen, named, episodes, seed, bar)
        played = {one.context_id for one in found}
        named, drawn = ([one for one in some if one.id in played] for some in (named, drawn))
        choose = {Setting.PROVED: best, Setting.FILTERED: fullest}
        winner = choose[setting](found) if setting in choose else None
        for one in named:
            if one.id == winner:
                _bless(opened, one, f"the best of {len(named)} on {episodes} validation episodes ({setting})")
    rows = notes.validation_rows(named, found, front(found), winner)
    by_context = {one.context_id: one for one in found}
    links = [by_context[one.id] for one in drawn]
    if as_json:
        say_json(
            {"scope": scope, "split": str(split), "setting": str(setting), "blessed": winner, "contexts": rows}
            | dict(zip(("mean", "deviation"), spread(links), strict=True))
        )
        return
    say_table(
        [head if i in (0, 5, 6) else f"{head}>" for i, head in enumerate(rows[0])], [list(r.values()) for r in rows]
    )
    if setting is Setting.TEST_TIME:
        mean, deviation = spread(links)
        say(f"{len(links)} of the pool at step 10: {100 * mean:.1f} ± {100 * deviation:.1f} % won")
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


def _named(bank: Bank, names: list[str], tasks: list[Task]) -> list[Context]:
    from cli.workflow import about

    return [about(bank.context(name), tasks) for name in names]


def _bless(bank: Bank, context: Context, reason: str) -> None:
    """Bless a context that is not blessed yet, and let those of its lessons go that waited in quarantine."""
    if bank.blessed(context.scope) != context:
        bank.bless(context, reason)
    now = bank.statuses()
    for key in context.lessons:
        if now.get(key) is Status.QUARANTINED:
            bank.note(key, Op.RELEASE, f"context {context.id} holds it, and was {reason}", actor="validate")


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
