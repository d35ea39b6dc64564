"""A context from lessons: one text of notes within a budget, in the form the pocket models read.

Knows no tokenizer: it is handed a counter. Knows no bank: it is handed lessons with their ids, and leaves
the version of the context to whoever stores it.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from experience_bank.codec import context_id
from experience_bank.sightings import name_in
from opcd_agents.errors import UsageError
from opcd_agents.maps import hang
from opcd_agents.types import Context, Lesson

_NOTES: Final = "notes/1"
_VERBATIM: Final = "verbatim/1"

Known = tuple[str, Lesson]


@dataclass(frozen=True)
class _Sentence:
    """One fact of the notes.

    Attributes:
        text: As it stands in the notes.
        above: What the fact leads to: the place of a thing, the neighbour of a room nearer the top.
        lessons: Ids of the lessons behind it.
        weight: How many episodes show it.
        of_map: Whether it is about a room.
    """

    text: str
    above: str | None
    lessons: tuple[str, ...]
    weight: int
    of_map: bool


def consolidate(
    lessons: Sequence[Known], count_tokens: Callable[[str], int], budget: int, tokenizer: str = ""
) -> Context:
    """Notes on one scope: "Notes: coin crate. crate Cellar. Cellar Hall. Hall top.".

    Where lessons contradict each other, the place that more episodes show is stated, the one shown last
    among equals. When the budget is short, a fact is kept only together with the chain from it to the top
    of the map: the reader must recite that chain to get there, so half of it is worth nothing. Facts that
    more episodes show come first, and the rest of the map takes what is left.

    Args:
        lessons: (id, lesson) pairs of one scope, as a bank gives them.
        count_tokens: Length of a text in tokens of the model that will read it.
        budget: Most tokens the whole text may have.
        tokenizer: Name of that model.

    Returns:
        The context, at version 0: the bank that stores it counts.

    Raises:
        UsageError: The lessons are of several scopes, hold no place and no exit, or the budget is too
            small for one sentence.
    """
    scope = _scope(lessons)
    sentences = _sentences(lessons)
    if not sentences:
        raise UsageError(f"no lesson on {scope!r} tells a place or an exit; collect more episodes")
    kept = _fitting(sentences, lambda names: count_tokens(_text(sentences, names)) <= budget)
    if not kept:
        raise UsageError(f"a budget of {budget} tokens holds not one sentence; raise it")
    text = _text(sentences, kept)
    behind = [key for name, s in sentences.items() if name in kept for key in s.lessons]
    unique = tuple(dict.fromkeys(behind))
    key, tokens = context_id(text, _NOTES, tokenizer), count_tokens(text)
    return Context(key, text, "experience", 0, scope, unique, tokens, _NOTES, tokenizer, budget)


def system_prompt(text: str, scope: str, count_tokens: Callable[[str], int], tokenizer: str = "") -> Context:
    """A context of a text that somebody wrote, unchanged, at version 0.

    Raises:
        UsageError: The text is empty.
    """
    if not text.strip():
        raise UsageError("wanted a system prompt, got an empty text; write what the teacher shall read")
    key, tokens = context_id(text, _VERBATIM, tokenizer), count_tokens(text)
    return Context(key, text, "system_prompt", 0, scope, (), tokens, _VERBATIM, tokenizer)


def _scope(lessons: Sequence[Known]) -> str:
    scopes = sorted({lesson.scope for _, lesson in lessons})
    if not scopes:
        raise UsageError("wanted lessons to make notes of, got none; collect episodes first (`opcd collect`)")
    if len(scopes) > 1:
        raise UsageError(f"wanted lessons of one scope, got {', '.join(scopes[:5])}; name one")
    return scopes[0]


def _sentences(lessons: Sequence[Known]) -> dict[str, _Sentence]:
    """What the notes could say, by the name each sentence is about: places, then the map from its top."""
    rooms = _rooms(_links(lessons))
    places = {name: s for name, s in _places(lessons).items() if name not in rooms}
    return {**places, **rooms}


def _places(lessons: Sequence[Known]) -> dict[str, _Sentence]:
    claims: dict[str, list[Known]] = defaultdict(list)
    for known in lessons:
        if _named(known[1], "place", "name", "place"):
            claims[known[1].facts["name"]].append(known)
    winners = {name: max(claims[name], key=_support) for name in sorted(claims)}
    return {name: _place_sentence(*known) for name, known in winners.items()}


def _place_sentence(key: str, lesson: Lesson) -> _Sentence:
    name, place = lesson.facts["name"], lesson.facts["place"]
    return _Sentence(f"{name} {place}.", place, (key,), _weight([lesson]), of_map=False)


def _named(lesson: Lesson, kind: str, *names: str) -> bool:
    """Whether a lesson is of a kind and its facts are names: one that was imported may hold anything there."""
    return lesson.kind == kind and all(name_in(lesson.facts.get(name)) for name in names)


def _support(known: Known) -> tuple[int, tuple[str, int], str]:
    """How well a claim is supported: by how many episodes, and how late it was last seen."""
    _, lesson = known
    return _weight([lesson]), max(lesson.evidence, default=("", 0)), lesson.statement


def _links(lessons: Sequence[Known]) -> dict[str, dict[str, list[Known]]]:
    """Link rooms: room -> neighbour -> the lessons that show the link, which holds both ways."""
    links: dict[str, dict[str, list[Known]]] = defaultdict(lambda: defaultdict(list))
    for known in lessons:
        if _named(known[1], "exit", "room", "to"):
            room, to = known[1].facts["room"], known[1].facts["to"]
            links[room][to].append(known)
            links[to][room].append(known)
    return links


def _rooms(links: Mapping[str, Mapping[str, list[Known]]]) -> dict[str, _Sentence]:
    up = hang({room: sorted(links[room]) for room in sorted(links)})
    return {room: _room_sentence(room, above, links[room]) for room, above in up.items()}


def _room_sentence(room: str, above: str | None, ways: Mapping[str, list[Known]]) -> _Sentence:
    behind = ways[above] if above else [known for shown in ways.values() for known in shown]
    ids = tuple(sorted(key for key, _ in behind))
    return _Sentence(f"{room} {above or 'top'}.", above, ids, _weight([lesson for _, lesson in behind]), of_map=True)


def _weight(lessons: Sequence[Lesson]) -> int:
    return len({episode for lesson in lessons for episode, _ in lesson.evidence})


def _fitting(sentences: Mapping[str, _Sentence], fits: Callable[[Collection[str]], bool]) -> frozenset[str]:
    """The names whose sentences are kept."""
    if fits(sentences):
        return frozenset(sentences)
    kept: frozenset[str] = frozenset()
    for name in sorted(sentences, key=lambda n: _urgency(n, sentences)):
        wider = kept | _chain(name, sentences)
        if wider != kept and fits(wider):
            kept = wider
    return kept


def _urgency(name: str, sentences: Mapping[str, _Sentence]) -> tuple[bool, int, str]:
    return sentences[name].of_map, -sentences[name].weight, name


def _chain(name: str | None, sentences: Mapping[str, _Sentence]) -> frozenset[str]:
    """`name` and all that it leads to; odd lessons may lead in a circle."""
    chain: set[str] = set()
    while name is not None and name in sentences and name not in chain:
        chain.add(name)
        name = sentences[name].above
    return frozenset(chain)


def _text(sentences: Mapping[str, _Sentence], names: Collection[str]) -> str:
    return " ".join(["Notes:", *(s.text for name, s in sentences.items() if name in names)])
