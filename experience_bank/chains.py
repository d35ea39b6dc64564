"""Chains of experience items as contexts, and what is chosen among them: OPCD's pool of 10 chains of 30 steps.

After OPCD (arXiv 2602.12275, section 4 and appendix A.3): the prefixes of all chains are candidates; `filtered` takes the one that does best
in the prompt on held-out tasks, `test-time` three at random after ten steps. There both are chosen by the test tasks; here by validation.
Asks no model and plays nothing.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Final

import numpy as np

from experience_bank.codec import context_id, lesson_id
from experience_bank.contexts import ContextLayer, Counts, Validation
from experience_bank.document import line
from experience_bank.validation import together
from experience_bank.writing import Candidate
from opcd_agents.errors import UsageError
from opcd_agents.types import Context, Lesson

RENDERER: Final = "chain/1"
_WHERE: Final = re.compile(r"run (\w+) of (.*): chain (\d+), step (\d+)", re.DOTALL)


@dataclass(frozen=True)
class Link:
    """One step of a chain, and the context that the chain was by then."""

    chain: int
    step: int
    context: Context


def chain_context(
    candidate: Candidate, count_tokens: Callable[[str], int], budget: int, tokenizer: str = ""
) -> Context | None:
    """What a chain has written by a step, in its order; the newest whole items where the budget is short.

    Args:
        candidate: The step of the chain.
        count_tokens: Length of a text in tokens of the model that will read it.
        budget: Most tokens (the paper: 8192 for games, 16384 for maths).
        tokenizer: Name of that model.

    Returns:
        The context, at version 0; None where nothing was written yet, or nothing fits.
    """
    lessons = [lesson for lesson in candidate.lessons if line(lesson.statement)]
    while lessons and count_tokens(_text(lessons)) > budget:
        lessons = lessons[1:]
    if not lessons:
        return None
    text = _text(lessons)
    key = context_id(text, RENDERER, tokenizer)
    ids = tuple(map(lesson_id, lessons))
    scope = lessons[0].scope
    return Context(key, text, "experience", 0, scope, ids, count_tokens(text), RENDERER, tokenizer, budget)


def where(candidate: Candidate, run: str, writer: str) -> str:
    """Why a context was made, for its log: its place in the pool.

    Args:
        candidate: The step of the chain.
        run: A ULID of the run that wrote the pool.
        writer: Name of the model that wrote it.
    """
    return f"run {run} of {writer}: chain {candidate.seed}, step {candidate.step}"


def pool(bank: ContextLayer, scope: str) -> list[Link]:
    """All steps of all chains of the latest run on a scope that a bank holds, chain by chain.

    Two runs number their chains alike, also in banks that were merged; their steps are no chain together.
    """
    stored = {context.id: context for context in bank.contexts(scope)}
    places = [(key, at) for key, reason in bank.makings(scope) if (at := _WHERE.fullmatch(reason))]
    latest = max((at[1] for _, at in places), default="")
    found = {(int(at[3]), int(at[4])): stored[key] for key, at in places if at[1] == latest}
    return [Link(chain, step, found[chain, step]) for chain, step in sorted(found)]


def drawn(links: Sequence[Link], step: int = 10, count: int = 3, seed: int = 0) -> list[Context]:
    """Contexts of different chains at one step, by chance: the test-time setting.

    Raises:
        UsageError: Fewer chains than that got so far.
    """
    there = [link.context for link in links if link.step == step]
    if len(there) < count:
        raise UsageError(f"wanted {count} chains that have written something by step {step}, got {len(there)}")
    chosen = np.random.default_rng(seed).choice(len(there), count, replace=False)
    return [there[i] for i in sorted(chosen)]


def fullest(validations: Sequence[Validation]) -> str | None:
    """Id of the context with the most wins in the prompt, whatever its interval: the filtered setting."""
    rates = {key: _rate(counts) for key, counts in together(validations).items()}
    return max(rates, key=lambda key: (rates[key], key), default=None)


def spread(validations: Sequence[Validation]) -> tuple[float, float]:
    """Mean and standard deviation of the rates of wins, as the paper's tables give them.

    Args:
        validations: One for each link that was drawn; two chains that came to the same context count as two.
    """
    rates = [_rate(found.by_task) for found in validations]
    return mean(rates), stdev(rates) if len(rates) > 1 else 0.0


def _rate(counts: Mapping[str, Counts]) -> float:
    played = sum(n for _, n, _, _ in counts.values())
    return sum(wins for wins, *_ in counts.values()) / played if played else 0.0


def _text(lessons: Sequence[Lesson]) -> str:
    return "\n".join(f"- {line(lesson.statement)}" for lesson in lessons)
