"""Lessons in words as one text within a budget: a line each, the best first, none cut.

For models that read prose; `experience_bank.consolidate` makes the notes that the pocket models read. What a lesson says may
come from a game or a model: it stays on its line, and cannot pose as a heading, a role or the end of the text.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from experience_bank.codec import context_id
from experience_bank.scopes import holding
from opcd_agents.errors import UsageError
from opcd_agents.scores import wilson
from opcd_agents.types import Context, Lesson

RENDERER: Final = "document/1"
_HEAD: Final = "Notes from earlier episodes (they may be wrong):"
_LONGEST: Final = 400
# What chat templates, instructions and markup are made of; the words stay, the signs go.
_SIGNS: Final = re.compile(r"[<>\[\]{}|`#*_\\]+")

Known = tuple[str, Lesson]


def document(
    lessons: Sequence[Known],
    count_tokens: Callable[[str], int],
    budget: int,
    tokenizer: str = "",
    votes: Mapping[str, Sequence[float]] | None = None,
    scope: str | None = None,
) -> Context:
    """A context of the lessons that do most for their length; those that make no `line` are left out.

    Args:
        lessons: (id, lesson) pairs of one scope, or of those that hold for `scope`.
        count_tokens: Length of a text in tokens of the model that will read it.
        budget: Most tokens the whole text may have.
        tokenizer: Name of that model.
        votes: Lesson id to the values of its votes; see `worth`.
        scope: What the context is about; None: the scope of the lessons.

    Returns:
        The context, at version 0: the bank that stores it counts.

    Raises:
        UsageError: There are no lessons, they are of other scopes, or the budget holds none.
    """
    scopes = sorted({lesson.scope for _, lesson in lessons})
    about = scope or "".join(scopes[:1])
    if not scopes or not set(scopes) <= set(holding(about) if scope else scopes[:1]):
        raise UsageError(f"wanted lessons of one scope, got those of {', '.join(scopes[:5]) or 'none'}; name one")
    told = votes or {}
    ranked = sorted(
        (known for known in lessons if line(known[1].statement)),
        key=lambda known: (-worth(known, told.get(known[0], ())), known[1].statement),
    )
    kept: list[Known] = []
    for known in ranked:
        if count_tokens(_text([*kept, known])) <= budget:
            kept.append(known)
    if not kept:
        raise UsageError(
            f"a budget of {budget} tokens holds not one lesson (of {len(ranked)}, each whole); raise it"
            if ranked
            else f"no lesson on {about!r} is a line of at most {_LONGEST} characters; learn shorter ones"
        )
    text = _text(kept)
    key = context_id(text, RENDERER, tokenizer)
    ids = tuple(key for key, _ in kept)
    return Context(key, text, "experience", 0, about, ids, count_tokens(text), RENDERER, tokenizer, budget)


def worth(known: Known, votes: Sequence[float]) -> float:
    """What a lesson is worth: how surely it helped, then how many episodes show it.

    The lower end of the Wilson interval of the share of votes above nought (a lesson nobody voted on counts as one vote
    of each kind), and a little for each doubling of its evidence.
    """
    helped = sum(vote > 0 for vote in votes)
    sure, _ = wilson(helped + 1, len(votes) + 2)
    shown = len({episode for episode, _ in known[1].evidence})
    return sure + 0.02 * shown.bit_length()


def line(statement: str) -> str:
    """A statement as one line that is nothing but words, without control characters or the signs of markup.

    Empty where the line would be longer than 400 characters: a lesson is left out and not cut, for half a rule may say the
    opposite.
    """
    plain = "".join(c if unicodedata.category(c)[0] != "C" else " " for c in unicodedata.normalize("NFKC", statement))
    said = " ".join(_SIGNS.sub(" ", plain).split())
    return said if len(said) <= _LONGEST else ""


def _text(lessons: Sequence[Known]) -> str:
    return "\n".join([_HEAD, *(f"- {line(lesson.statement)}" for _, lesson in lessons)])
