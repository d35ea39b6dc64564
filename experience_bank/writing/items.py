"""Experience items, episode by episode, and chains of them: the scheme of OPCD and OEL. Writes to no bank.

After OPCD (arXiv 2602.12275, section 4.1.1 and appendix A.3) and OEL (arXiv 2603.16856); the wording of the prompts and the
citations are our own.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from experience_bank.writing import grammar
from experience_bank.writing.deltas import Add, Batch
from experience_bank.writing.quote import BAR, one_line
from experience_bank.writing.records import Known, Shown, allowed, newest
from experience_bank.writing.writer import STREAM, Question, Writer, ask
from opcd_agents.errors import UsageError
from opcd_agents.types import Lesson

MOST: Final = 8  # items a reply; OPCD's models write one or two


@dataclass(frozen=True)
class Candidate:
    """What a chain knew after some of its steps: a context to be tried.

    Attributes:
        seed: The chain's.
        step: How many episodes it had read, from 1.
        lessons: In the order in which they were written.
    """

    seed: int
    step: int
    lessons: tuple[Lesson, ...]


def write_items(
    writer: Writer, episodes: Iterable[Known], previous: Sequence[Lesson] = (), *, seed: int = 0
) -> Iterator[Batch]:
    """Lessons from each episode by itself.

    Args:
        writer: The model.
        episodes: (id, episode) pairs, as a bank gives them.
        previous: Lessons that every prompt shows, the oldest first; the newest that fit `writer.room`.
        seed: Seed of the model's chance; episode `i` has stream `i`.

    Returns:
        One batch an episode, as soon as it is written.

    Raises:
        UsageError: An episode belongs to the test split; nothing was asked.
    """
    known = allowed(episodes)
    shown = _listed(writer, previous)
    return ask(writer, [_question(writer, e, shown, seed * STREAM + i) for i, e in enumerate(known)])


def write_chains(
    writer: Writer, episodes: Iterable[Known], *, seeds: Sequence[int], steps: int, previous: bool
) -> Iterator[Batch]:
    """Several chains over the same episodes that differ in the model's chance alone (OPCD: 10 of 30, OEL: 10 of 50).

    Args:
        writer: The model; its temperature should be above 0.
        episodes: (id, episode) pairs, one a step.
        seeds: One a chain.
        steps: How many of the episodes are read.
        previous: Whether a step shows what its chain has written so far, the newest that fits (OEL from 4B up).

    Returns:
        `len(seeds)` batches a step, in the order of `seeds`; see `candidates`.

    Raises:
        UsageError: There are fewer episodes than steps, a seed stands twice, or an episode belongs to the test split.
    """
    known = allowed(episodes)
    if not 0 < steps <= len(known) or len(set(seeds)) < len(seeds):
        raise UsageError(
            f"wanted different seeds and 1 to {len(known)} steps (one an episode), got {list(seeds)} and {steps}"
        )
    return _chains(writer, known[:steps], seeds, previous)


def candidates(batches: Iterable[Batch], seeds: Sequence[int]) -> Iterator[Candidate]:
    """The prefixes of all chains, as soon as they are written. A failed batch adds nothing and keeps its step.

    Args:
        batches: What `write_chains` gives.
        seeds: The seeds it was given.
    """
    learnt: dict[int, tuple[Lesson, ...]] = dict.fromkeys(seeds, ())
    for number, batch in enumerate(batches):
        step, place = divmod(number, len(seeds))
        learnt[seeds[place]] += _added(batch)
        yield Candidate(seeds[place], step + 1, learnt[seeds[place]])


def read_items(reply: str, shown: Sequence[Shown], *, by: str, model: str, most: int, several: bool) -> tuple[Add, ...]:
    """The items of a reply as lessons on the scope of the episodes."""
    scope = shown[0].episode.task.scope
    said = grammar.items(reply, shown, most, several=several)
    return tuple(Add(lesson(scope, item), by, model) for item in said)


def lesson(scope: str, said: grammar.Said) -> Lesson:
    """What was said, as a lesson. No facts: the same sentence is the same lesson, whoever wrote it under what scheme."""
    return Lesson("strategy", scope, said.statement, {}, said.cited)


def _chains(writer: Writer, episodes: Sequence[Known], seeds: Sequence[int], previous: bool) -> Iterator[Batch]:
    learnt: list[tuple[Lesson, ...]] = [() for _ in seeds]
    for step, episode in enumerate(episodes):
        shown = [_listed(writer, before if previous else ()) for before in learnt]
        asked = [_question(writer, episode, e, s * STREAM + step) for e, s in zip(shown, seeds, strict=True)]
        for place, batch in enumerate(ask(writer, asked)):
            learnt[place] += _added(batch)
            yield batch


def _listed(writer: Writer, previous: Sequence[Lesson]) -> dict[str, str]:
    """The lines of the newest lessons, for the placeholder they stand in; none where none fits."""
    said = [BAR + one_line(lesson.statement) for lesson in previous]
    if not (kept := newest(said, writer.count_tokens, writer.room)):
        return {}
    left = [f"({len(said) - len(kept)} older ones are left out: there is no room for them)"]
    return {"previous": "\n".join([*left[: len(kept) < len(said)], *kept])}


def _question(writer: Writer, episode: Known, lessons: Mapping[str, str], seed: int) -> Question:
    scheme = "experience-previous" if lessons else "experience"
    read = partial(read_items, by="experience", model=writer.policy.name, most=MOST, several=False)
    return Question(scheme, (episode,), MOST, seed, read, lessons=lessons)


def _added(batch: Batch) -> tuple[Lesson, ...]:
    return tuple(delta.lesson for delta in batch.deltas if isinstance(delta, Add))
