"""Reads a Z-machine story file and its memory: which object is which, what holds what.

jericho's own object functions answer nothing for games outside its list, so the object tree is read here,
as the Z-Machine Standard 1.1 lays it out (sections 3, 12). Knows Inform 7's way of keeping a printed name; knows no houses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from opcd_agents.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_VERSION: Final = 8
_DEFAULTS, _ENTRY = 126, 14
_PARENT, _SIBLING, _CHILD, _PROPERTIES = 6, 8, 10, 12
_ALPHABETS: Final = (
    "abcdefghijklmnopqrstuvwxyz",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    " \n0123456789.,!?_#'\"/\\-:()",
)
_LONGEST_NAME = 12  # words of three letters; more is no name
_PLAYER: Final = "yourself"


def word(memory: Sequence[int], address: int) -> int:
    """The 16-bit big-endian number at `address`."""
    return int(memory[address]) << 8 | int(memory[address + 1])


@dataclass(frozen=True)
class ObjectTree:
    """Where a story keeps its objects. What is asked of memory is asked of the memory given.

    Attributes:
        table: Address of the first object's entry.
        count: How many objects there are, numbered from 1.
        named: printed name -> object number, for names that one object alone has.
    """

    table: int
    count: int
    named: dict[str, int]

    @classmethod
    def of(cls, story: bytes) -> ObjectTree:
        """Read the objects of a story file.

        Raises:
            EngineError: It is no version 8 story, or nothing in it is named "yourself".
        """
        if len(story) < 64 or story[0] != _VERSION or word(story, 0x34):
            raise EngineError("wanted a version 8 story file with the usual alphabet; compile it again")
        table = word(story, 0x0A) + _DEFAULTS
        count = (word(story, table + _PROPERTIES) - table) // _ENTRY
        return cls(table, count, _printed_names(story, table, count))

    def parent(self, memory: Sequence[int], number: int) -> int:
        """The object that holds object `number`; 0 if none does."""
        return word(memory, self._entry(number) + _PARENT)

    def children(self, memory: Sequence[int], number: int) -> Iterator[int]:
        """The objects that object `number` holds, newest first."""
        child = word(memory, self._entry(number) + _CHILD)
        while child:
            yield child
            child = word(memory, self._entry(child) + _SIBLING)

    def has(self, memory: Sequence[int], number: int, attribute: int) -> bool:
        """Whether object `number` has an attribute."""
        return bool(int(memory[self._entry(number) + attribute // 8]) >> (7 - attribute % 8) & 1)

    def _entry(self, number: int) -> int:
        return self.table + (number - 1) * _ENTRY


def _printed_names(story: bytes, table: int, count: int) -> dict[str, int]:
    """Names by the property in which the player is called "yourself"."""
    texts: dict[int, list[tuple[str, int]]] = {}
    for number in range(1, count + 1):
        entry = table + (number - 1) * _ENTRY
        for key, value in _properties(story, word(story, entry + _PROPERTIES)):
            texts.setdefault(key, []).append((_text_value(story, value), number))
    for pairs in texts.values():
        names = [name for name, _ in pairs]
        if names.count(_PLAYER) == 1:
            return {name: number for name, number in pairs if names.count(name) == 1}
    raise EngineError(f"wanted a story with one object named {_PLAYER!r}; compile it again")


def _properties(story: bytes, address: int) -> Iterator[tuple[int, int]]:
    """(number, value) of an object's properties of two bytes."""
    at = address + 1 + 2 * story[address]
    while size_byte := story[at]:
        if size_byte & 0x80:
            size, at = story[at + 1] & 0x3F or 64, at + 2
        else:
            size, at = 2 if size_byte & 0x40 else 1, at + 1
        if size == 2:
            yield size_byte & 0x3F, word(story, at)
        at += size


def _text_value(story: bytes, address: int) -> str:
    """An Inform 7 text: two words, of which the second is a packed address; "" if it is none."""
    if not 64 <= address < len(story) - 3:
        return ""
    packed = 8 * word(story, address + 2)
    return decode(story, packed) if 64 <= packed < len(story) - 2 * _LONGEST_NAME else ""


def decode(story: bytes, address: int) -> str:
    """The ZSCII text at a byte address; only as much of it as a name can be."""
    return _letters(story, _symbols(story, address), abbreviated=False)


def _symbols(story: bytes, address: int) -> list[int]:
    found: list[int] = []
    for at in range(address, min(address + 2 * _LONGEST_NAME, len(story) - 1), 2):
        triple = word(story, at)
        found += [triple >> 10 & 31, triple >> 5 & 31, triple & 31]
        if triple & 0x8000:
            break
    return found


def _letters(story: bytes, symbols: list[int], *, abbreviated: bool) -> str:
    text, shift, rest = "", 0, iter(symbols)
    for symbol in rest:
        if symbol in (4, 5):
            shift = symbol - 3
            continue
        if symbol == 0:
            text += " "
        elif symbol < 4:
            text += "" if abbreviated else _abbreviation(story, 32 * (symbol - 1) + next(rest, 0))
        elif shift == 2 and symbol == 6:
            text += chr(next(rest, 0) << 5 | next(rest, 0))
        else:
            text += _ALPHABETS[shift][symbol - 6]
        shift = 0
    return text


def _abbreviation(story: bytes, index: int) -> str:
    address = 2 * word(story, word(story, 0x18) + 2 * index)
    return _letters(story, _symbols(story, address), abbreviated=True)
