"""What one printed text of a house shows: the room, its exits, what lies where, what was moved.

Reads only sentences of the forms that the houses print, and of those only names that are one to three plain
words: whatever else stands there (a model or a game may have written it) is passed over. Knows no episodes.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

_LONGEST: Final = 40
_WORDS: Final = re.compile(r"[A-Za-z]+(?: [A-Za-z]+){0,2}")
# A name that holds one of these would let a game forge the sentences that notes are made of.
_ARTICLES: Final = ("a", "an", "the")
_LINKS: Final = ("and", "are", "by", "in", "into", "is", "near", "notes", "on", "top", "with")
_RESERVED: Final = frozenset((*_ARTICLES, *_LINKS))

_TITLE: Final = re.compile(r"^-= (.{1,40}) =-[ \t]*$", re.MULTILINE)
_EXIT: Final = re.compile(r"(.+) (north|south|east|west)(?: by (?:open|closed) (.+))?")
_CONTAINER: Final = re.compile(r"There is an? (?:open|closed) (.+?)(?: with (.+))?")
_FLOOR: Final = re.compile(r"There (?:is|are) (.+) on the floor")
_CARRIED: Final = re.compile(r"You carry (.+)")
_OPENED: Final = re.compile(r"You open the (.+), revealing (.+)")
_TAKEN: Final = re.compile(r"You take the (.+) from the (.+)")
_LIFTED: Final = re.compile(r"You pick up the (.+) from the ground")
_LAID: Final = re.compile(r"You (?:put the (.+) into the .+|drop the (.+) on the ground)")


@dataclass(frozen=True)
class Way:
    """An exit in view; `door` is "" where nothing closes it."""

    direction: str
    to: str
    door: str


@dataclass(frozen=True)
class Sight:
    """What a text shows.

    Attributes:
        room: The room named in the title; None if there is no title.
        body: The text from the title on.
        ways: The exits in view.
        news: (name, place) pairs that the sentence on the last command tells.
        moved: The things that the last command moved.
        places: (name, place) pairs in view.
        carried: The things the player holds.
    """

    room: str | None
    body: str
    ways: tuple[Way, ...]
    news: tuple[tuple[str, str], ...]
    moved: tuple[str, ...]
    places: tuple[tuple[str, str], ...]
    carried: tuple[str, ...]


def see(text: str, last_room: str | None) -> Sight:
    """Read a text.

    Args:
        text: What the player was shown.
        last_room: Where the player was before, for texts that name no room.
    """
    titles = list(_TITLE.finditer(text))
    title = titles[-1] if titles else None
    room = name_in(title[1]) if title else None
    head = _sentences(text[: title.start()] if title else text)
    body = _sentences(text[title.end() :]) if title and room else []
    return Sight(
        room=room,
        body=text[title.start() :].rstrip() if title else "",
        ways=tuple(way for s in body for way in _ways(s)),
        news=tuple(pair for s in head for pair in _told(s, room or last_room)),
        moved=tuple(thing for s in head for thing in _moved(s)),
        places=tuple(pair for s in body if room for pair in _placed(s, room)),
        carried=tuple(thing for s in body for thing in _listed(_CARRIED.fullmatch(s))),
    )


def name_in(text: str | None) -> str | None:
    """`text` if it can be a name: one to three words of letters, at most 40 characters."""
    if text is None or len(text) > _LONGEST or not _WORDS.fullmatch(text):
        return None
    return None if _RESERVED & set(text.lower().split()) else text


def _sentences(text: str) -> list[str]:
    return [" ".join(part.split()) for part in text.split(".")]


def _ways(sentence: str) -> Iterator[Way]:
    if not sentence.startswith("Exits: "):
        return
    for item in sentence.removeprefix("Exits: ").split(", "):
        match = _EXIT.fullmatch(item)
        to = name_in(match[1]) if match else None
        if match and to:
            yield Way(match[2], to, name_in(match[3]) or "")


def _placed(sentence: str, room: str) -> Iterator[tuple[str, str]]:
    """(name, place) pairs of a sentence of a room's description."""
    for thing in _listed(_FLOOR.fullmatch(sentence)):
        yield thing, room
    match = _CONTAINER.fullmatch(sentence)
    if match and (container := name_in(match[1])):
        yield container, room
        yield from _contents(match[2], container)


def _told(sentence: str, room: str | None) -> Iterator[tuple[str, str]]:
    """(name, place) pairs of the game's sentence on the last command."""
    if match := _OPENED.fullmatch(sentence):
        yield from _contents(match[2], name_in(match[1]))
    elif match := _TAKEN.fullmatch(sentence):
        yield from _pairs([name_in(match[1])], name_in(match[2]))
    elif match := _LIFTED.fullmatch(sentence):
        yield from _pairs([name_in(match[1])], room)


def _moved(sentence: str) -> Iterator[str]:
    for pattern in (_TAKEN, _LIFTED, _LAID):
        if match := pattern.fullmatch(sentence):
            thing = name_in(match[1] or match[2])
            yield from [thing] if thing else []


def _contents(listing: str | None, container: str | None) -> Iterator[tuple[str, str]]:
    yield from _pairs(_items(listing or ""), container)


def _pairs(names: Iterable[str | None], place: str | None) -> Iterator[tuple[str, str]]:
    for name in names:
        if name and place and name != place:
            yield name, place


def _listed(match: re.Match[str] | None) -> list[str]:
    return _items(match[1]) if match else []


def _items(listing: str) -> list[str]:
    """The names of "a coin, a cup and a map"; nothing of an item that is no name."""
    parts = re.split(r", | and ", listing)
    bare = (re.sub(r"^an? ", "", part) for part in parts)
    return [name for name in map(name_in, bare) if name]
