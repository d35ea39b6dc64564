"""What the commands of the bank do with models and games: write lessons and contexts, try them, remind players. Prints nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cli import models
from cli.console import tell
from cli.workflow import BUDGET, Remind, gather
from experience_bank import Bank, consolidate, extract
from experience_bank.chains import chain_context, where
from experience_bank.contexts import Validation
from experience_bank.document import document
from experience_bank.ids import Ids
from experience_bank.lessons import Status
from experience_bank.reminders import Reminded, When
from experience_bank.retrieve import VectorIndex, WordIndex
from experience_bank.transcripts import transcripts
from experience_bank.validation import gap
from experience_bank.writing import (
    Batch,
    Prompts,
    Writer,
    apply,
    candidates,
    comparisons,
    rollout_groups,
    write_chains,
    write_critiques,
    write_items,
    write_operations,
)
from opcd_agents.errors import EngineError, UsageError
from opcd_agents.scores import score
from opcd_agents.types import Context, Episode, Lesson, Outcome, Task

if TYPE_CHECKING:
    from pathlib import Path

    from cli.console import Progress
    from opcd_agents.types import Policy


def make_notes(
    bank: Bank,
    scope: str,
    count_tokens: Callable[[str], int],
    budget: int = BUDGET,
    tokenizer: str = "",
    style: str = "notes",
    *,
    quarantined: bool = False,
) -> Context:
    """Extract lessons from the training episodes of a scope, make a context of them, store both.

    Args:
        bank: The bank.
        scope: What it is about.
        count_tokens: Length of a text in tokens of the model that will read it.
        budget: Most tokens.
        tokenizer: Name of that model.
        style: `notes`, `document` (also of lessons that hold for the scope's family or everywhere), or `raw`: the episodes themselves.
        quarantined: Whether lessons in quarantine are drawn on too.

    Raises:
        UsageError: The bank holds neither a training episode of that scope nor lessons for it.
    """
    episodes = bank.to_learn_from(scope)
    if not episodes and (style == "raw" or not bank.lessons_for(scope, status=None)):
        raise UsageError(f"wanted training episodes of {scope!r} in the bank, found none; run `opcd collect` first")
    if style == "raw":
        return bank.add_context(transcripts(episodes, count_tokens, budget, tokenizer))
    bank.add_lessons(extract(episodes))
    known = _told(bank, scope, quarantined)
    if not known and (waiting := bank.lessons_for(scope, Status.QUARANTINED)):
        raise UsageError(
            f"all {len(waiting)} lessons for {scope!r} wait in quarantine; draw on them with --quarantined"
        )
    if style == "document":
        return bank.add_context(document(known, count_tokens, budget, tokenizer, bank.votes(), scope))
    own = [one for one in known if one[1].scope == scope]  # what is true of a family is no place and no exit
    return bank.add_context(consolidate(own, count_tokens, budget, tokenizer))


def _told(bank: Bank, scope: str, quarantined: bool) -> list[tuple[str, Lesson]]:
    waiting = bank.lessons_for(scope, Status.QUARANTINED) if quarantined else []
    return bank.lessons_for(scope) + waiting


def to_learn_from(bank: Bank, scope: str) -> list[tuple[str, Episode]]:
    """The training episodes on a scope.

    Raises:
        UsageError: There is none.
    """
    episodes = bank.to_learn_from(scope)
    if not episodes:
        raise UsageError(f"wanted training episodes of {scope!r} in the bank, found none; run `opcd collect` first")
    return episodes


def writer_of(model: str, prompts: Path | None) -> Writer:
    """A model that writes lessons; see `cli.models.player`. `prompts` is a folder of prompts of one's own."""
    policy = models.player(model)
    return Writer(policy, models.counter(policy), prompts=Prompts.load(prompts))


def write_lessons(bank: Bank, scope: str, writer: Writer, scheme: str, seed: int) -> list[str]:
    """Let a model write lessons from the training episodes of a scope, and store them.

    Args:
        bank: The bank.
        scope: What they are about.
        writer: Who writes.
        scheme: `items`, `operations` or `critique`.
        seed: Seed of the model's chance.

    Returns:
        Why replies could not be used, one reason each.
    """
    episodes = bank.to_learn_from(scope)
    if scheme == "critique":
        batches = write_critiques(writer, rollout_groups(episodes), seed=seed)
    elif scheme == "operations":
        batches = write_operations(writer, comparisons(episodes), bank.lessons_for(scope), bank.votes(), seed=seed)
    else:
        batches = write_items(writer, episodes, seed=seed)
    failed: list[str] = []
    for batch in batches:
        apply(bank, batch.deltas)
        failed += [batch.failed] if batch.failed else []
    return failed


def write_pool(
    bank: Bank,
    scope: str,
    writer: Writer,
    seeds: Sequence[int],
    steps: int,
    budget: int,
    *,
    previous: bool,
) -> tuple[list[str], int]:
    """Let a model write chains of items from the same training episodes; each step becomes a context in the bank.

    What a step wrote is stored before the next is asked for: whoever is cut off keeps it.

    Args:
        bank: The bank.
        scope: What they are about.
        writer: Who writes, and whose tokens are counted.
        seeds: One a chain.
        steps: Episodes that each chain reads.
        budget: Most tokens of a context.
        previous: Whether a step shows what its chain has written so far.

    Returns:
        Why replies could not be used, one reason each, and how many contexts the pool got.
    """
    run, failed, made = Ids().new(), list[str](), set[str]()
    batches = write_chains(writer, bank.to_learn_from(scope), seeds=seeds, steps=steps, previous=previous)
    for candidate in candidates(_kept(bank, batches, failed), seeds):
        context = chain_context(candidate, writer.count_tokens, budget, writer.policy.name)
        if context is not None:
            made.add(bank.add_context(context, where(candidate, run, writer.policy.name)).id)
    return failed, len(made)


def _kept(bank: Bank, batches: Iterator[Batch], failed: list[str]) -> Iterator[Batch]:
    """The batches, each once its lessons are in the bank."""
    for batch in batches:
        apply(bank, batch.deltas)
        failed += [batch.failed] if batch.failed else []
        yield batch


def validate(
    bank: Bank,
    policy: Policy,
    tasks: Sequence[Task],
    contexts: Sequence[Context],
    episodes: int,
    seed: int,
    bar: Progress,
) -> list[Validation]:
    """Play tasks with each context and without any, by the same chance, and store how each did.

    Returns:
        How those contexts did with which anything could be played.

    Raises:
        EngineError: Every episode failed, without a context or with all of them.
    """

    def wins(context: Context | None, done: int) -> Mapping[str, tuple[int, int]]:
        played = gather(
            policy, tasks, episodes, seed=seed, context=context,
            watch=lambda what, n, total: bar.update(done + n, episodes * (len(contexts) + 1), what),
        )  # fmt: skip
        if reason := failures(played):
            tell(f"{f'with {context.id}' if context else 'without a context'}: {reason}")
        return score(played).by_task

    without = wins(None, 0)
    if not without:
        raise EngineError("every episode without a context failed; there is nothing to compare with")
    found: list[Validation] = []
    for number, context in enumerate(contexts, 1):
        mine = wins(context, number * episodes)
        if not mine:
            continue
        counts = {task: (*mine.get(task, (0, 0)), *without.get(task, (0, 0))) for task in {*mine, *without}}
        one = Validation(context.id, context.scope, policy.name, policy.weights, tasks[0].split, seed, counts)
        found.append(bank.add_validation(one))
        _tell_lessons(bank, context, counts)
    if not found:
        raise EngineError("every episode with a context failed; there is nothing to compare")
    return found


def failures(episodes: Sequence[Episode]) -> str:
    """How many episodes failed, and why the first one did; "" where none did."""
    failed = [episode.error or "no reason was given" for episode in episodes if episode.outcome is Outcome.FAILED]
    return f"{len(failed)} of {len(episodes)} episodes failed: {failed[0]:.200}" if failed else ""


def _tell_lessons(bank: Bank, context: Context, counts: Mapping[str, tuple[int, int, int, int]]) -> None:
    """Say to each lesson of a context how it did: `document` ranks by such votes. What is not there any more is passed over."""
    there = bank.statuses()
    if any(played and without for _, played, _, without in counts.values()) and (worth := gap(counts).value):
        bank.vote([(key, worth) for key in context.lessons if key in there], "outcome", context.id)


def validation_rows(
    contexts: Sequence[Context], found: Sequence[Validation], front: Sequence[str], winner: str | None
) -> list[dict[str, Any]]:
    """A row for each context: how it did with and without, and whether it is to be used."""
    rows: list[dict[str, Any]] = []
    for context, one in zip(contexts, found, strict=True):
        wins, played, wins_without, played_without = (sum(c[i] for c in one.by_task.values()) for i in range(4))
        worth = gap(one.by_task, len(found))
        rows.append(
            {
                "context": context.id,
                "tokens": context.tokens,
                "with": f"{wins}/{played}",
                "without": f"{wins_without}/{played_without}",
                "gap": round(worth.value, 4),
                "interval": f"{worth.low:.2f} to {worth.high:.2f}",
                "mark": ", ".join(
                    [*(["front"] if context.id in front else []), *(["best"] if context.id == winner else [])]
                ),
            }
        )
    return rows


def reminder(
    bank: Bank,
    scope: str,
    when: When,
    count_tokens: Callable[[str], int],
    embed: str | None = None,
    budget: int = BUDGET,
) -> Remind:
    """Makes players that are reminded of the bank's lessons on a scope, on its family, and of those that hold everywhere.

    Args:
        bank: The bank; it may be closed once this returns.
        scope: The world that is played.
        when: How often.
        count_tokens: Length of a text in tokens of who plays.
        embed: A sentence-transformers model whose vectors choose; None: words do.
        budget: Most tokens of what is put in front of one observation.

    Raises:
        UsageError: The bank has no lesson there.
    """
    known = bank.lessons_for(scope)
    if not known:
        raise UsageError(f"wanted lessons on {scope} to remind of, found none; run `opcd bank extract {scope}` first")
    shown = bank.fingerprints()
    index = VectorIndex(known, shown, models.embedder(embed)) if embed else WordIndex(known, shown)
    return lambda policy, tasks: Reminded(policy, index, tasks, when, count_tokens, budget)
