"""Maths: how replies failed, counted. Why an answer is right no count can say, and the lessons say so."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

from experience_bank.mining.plays import MOST_EVIDENCE
from experience_bank.scopes import family
from opcd_agents.types import Episode, Lesson

ERRORS: Final = ("unreadable", "wrong")
"""What checkers answer to replies that are not right."""
_MATHS: Final = ("math", "operator")


def is_maths(scope: str) -> bool:
    """Whether a scope is one of questions and answers."""
    return family(scope) in _MATHS


def failures(episodes: Iterable[tuple[str, Episode]]) -> Iterator[Lesson]:
    """A lesson for each scope and kind of error: its share of the replies, with some of them as evidence."""
    replies = Counter[str]()
    failed: dict[tuple[str, str], list[tuple[str, int]]] = defaultdict(list)
    for key, episode in episodes:
        scope = episode.task.scope
        for turn, answer in enumerate(_answers(episode)):
            replies[scope] += 1
            if answer in ERRORS:
                failed[scope, answer].append((key, turn))
    for (scope, error), turns in failed.items():
        facts = {"error": error, "count": str(len(turns)), "replies": str(replies[scope])}
        said = f"{len(turns)} of {replies[scope]} replies were {error} (a count; it teaches no maths)."
        yield Lesson("format", scope, said, facts, tuple(sorted(turns)[:MOST_EVIDENCE]))


def _answers(episode: Episode) -> list[str]:
    """What was said to each reply."""
    texts = [*(turn.observation for turn in episode.turns[1:]), episode.final]
    return [text.strip().lower() for text in texts[: len(episode.turns)]]
