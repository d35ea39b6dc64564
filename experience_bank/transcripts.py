"""Episodes as they were, as a context: what lessons have to beat (OPCD: raw traces win less than no context at all).

Whole episodes only, but none that failed; won ones first, the shortest of them first. Each line of what the game showed stands behind a
bar, so that no game can write turns, endings or roles into the text.
"""

from collections.abc import Callable, Iterable
from typing import Final

from experience_bank.codec import context_id
from experience_bank.writing.quote import lines, one_line
from opcd_agents.errors import UsageError
from opcd_agents.types import Context, Episode, Outcome

RENDERER: Final = "transcripts/2"


def transcripts(
    episodes: Iterable[tuple[str, Episode]], count_tokens: Callable[[str], int], budget: int, tokenizer: str = ""
) -> Context:
    """A context of as many whole episodes as the budget holds.

    Args:
        episodes: (id, episode) pairs of one scope.
        count_tokens: Length of a text in tokens of the model that will read it.
        budget: Most tokens the whole text may have.
        tokenizer: Name of that model.

    Raises:
        UsageError: There are none, or not one fits.
    """
    whole = [pair for pair in episodes if pair[1].outcome is not Outcome.FAILED]
    ranked = sorted(whole, key=lambda pair: (not pair[1].won, len(pair[1].turns), pair[0]))
    if not ranked:
        raise UsageError("wanted episodes that did not fail to show, got none; collect some")
    text = ""
    for _, episode in ranked:
        longer = f"{text}\n\n{told(episode)}".strip()
        if count_tokens(longer) <= budget:
            text = longer
    if not text:
        raise UsageError(f"a budget of {budget} tokens holds not one episode; raise it")
    key = context_id(text, RENDERER, tokenizer)
    scope = ranked[0][1].task.scope
    return Context(key, text, "experience", 0, scope, (), count_tokens(text), RENDERER, tokenizer, budget)


def told(episode: Episode) -> str:
    """One episode as text: what was seen, what was commanded, how it ended."""
    turns = [line for turn in episode.turns for line in (*lines(turn.observation), f"> {one_line(turn.action)}")]
    return "\n".join([*turns, *lines(episode.final), f"({episode.outcome})"])
