"""What an import has read and not yet brought in: a bank of its own beside, lessons, votes. Knows no format.

Nothing reaches the bank before all was read and checked, so an import that fails adds nothing. Ids are derived from what
is imported, so that importing again adds nothing either.
"""

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, final

from experience_bank.bank import Bank
from experience_bank.codec import blob_row, digest, episode_from, episode_row, lesson_id, turn_row
from experience_bank.episodes import is_whole, raw
from experience_bank.exchange.foreign import bring_foreign
from experience_bank.exchange.inside import store_of
from experience_bank.exchange.rows import checked
from experience_bank.layer import chunks
from experience_bank.store import Row
from opcd_agents.errors import BankError, OpcdError
from opcd_agents.types import Episode, Lesson

_AT_ONCE: Final = 256
_ODD: Final = (
    ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError, sqlite3.Error,
)  # fmt: skip
_NO_KEY: Final[Row] = {"id": "-", "digest": "", "episode_id": "-", "number": 0}
_DIGITS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
# The tables whose rows others name come first.
PLAIN: Final = (
    "lessons", "lesson_log", "evidence", "votes", "contexts", "context_log", "validations", "tombstones", "quarantine",
)  # fmt: skip


@dataclass(frozen=True)
class Foreign:
    """A lesson of somebody else.

    Attributes:
        lesson: What it says and where it comes from; no episode of ours shows it.
        format: How it was written down.
        file: In what.
        helped: How many said that it helped.
        harmed: How many said that it harmed.
    """

    lesson: Lesson
    format: str
    file: str
    helped: int = 0
    harmed: int = 0


@dataclass(frozen=True)
class Played:
    """An episode as rows, checked, and without an id."""

    row: Row
    turns: tuple[Row, ...]
    blobs: tuple[Row, ...]
    digest: str

    @classmethod
    def of(cls, episode: Episode, role: str) -> "Played":
        """Its rows.

        Raises:
            BankError: A value cannot be stored.
            ValueError: A value is none of the kind it should be.
        """
        row, turns = episode_row(episode, role), [turn_row(turn) for turn in episode.turns]
        checked("episodes", {**_NO_KEY, **row})
        for turn in turns:
            checked("turns", {**_NO_KEY, **turn})
        blobs = tuple(blob_row(turn.admissible) for turn in episode.turns if turn.admissible)
        return cls(row, tuple(turns), blobs, digest(row, turns))


@contextmanager
def reading(name: str, line: int | None = None) -> Generator[None]:
    """Turn whatever odd content raises into one line that names the file.

    Raises:
        BankError: The content is not what it should be.
    """
    where = name if line is None else f"{name}, line {line}"
    try:
        yield
    except OpcdError as error:
        raise BankError(f"{where}: {error}") from error
    except _ODD as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        said = "".join(sign if sign.isprintable() else "?" for sign in said)
        raise BankError(f"{where} cannot be read ({said:.120}); nothing was imported") from error


def derived_id(*parts: str) -> str:
    """A ULID of the beginning of time, made from what it names: no clock knows when that happened."""
    rest = int.from_bytes(hashlib.sha256("\n".join(parts).encode()).digest()[:10], "big")
    signs: list[str] = []
    for _ in range(16):
        rest, sign = divmod(rest, 32)
        signs.append(_DIGITS[sign])
    return "0" * 10 + "".join(reversed(signs))


@final
class Intake:
    """A place for what was read. Use it as a context manager."""

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix="opcd-import-")
        self._banks: list[Bank] = []
        self._played: Bank | None = None
        self._seen: Counter[str] = Counter()
        self._lessons: list[Foreign] = []
        self.notes: list[str] = []

    def __enter__(self) -> "Intake":
        return self

    def __exit__(self, *_: object) -> None:
        for bank in self._banks:
            bank.close()
        self._folder.cleanup()

    def bank(self) -> Bank:
        """A new empty bank, whose content is to be brought in."""
        bank = Bank.open(Path(self._folder.name) / f"{len(self._banks)}.db")
        store_of(bank).rows("PRAGMA synchronous = OFF")  # nobody misses it after a power cut
        self._banks.append(bank)
        return bank

    def add_episodes(self, episodes: Sequence[Played], ids: Sequence[str] = ()) -> None:
        """Take episodes.

        Args:
            episodes: The episodes.
            ids: Their ids; without, each gets one of its content, and equal ones are told apart by their number.
        """
        if self._played is None:
            self._played = self.bank()
        store = store_of(self._played)
        with store.writing():
            for at, episode in enumerate(episodes):
                self._seen[episode.digest] += 1
                key = ids[at] if ids else derived_id(episode.digest, str(self._seen[episode.digest]))
                store.insert("blobs", episode.blobs, known="skip")
                store.insert("episodes", [checked("episodes", {**episode.row, "id": key, "digest": episode.digest})])
                turns: list[Row] = [{"episode_id": key, "number": n, **turn} for n, turn in enumerate(episode.turns)]
                store.insert("turns", turns)

    def add_lessons(self, lessons: Iterable[Foreign]) -> None:
        """Take lessons of others."""
        self._lessons += lessons

    def check(self, name: str) -> None:
        """Read all that was staged as a bank would.

        Raises:
            BankError: Something could be stored and never be read.
        """
        for bank in self._banks:
            with reading(name):
                _readable(bank)

    def bring_in(self, bank: Bank, name: str, *, trusted: bool) -> Counter[str]:
        """Add everything to a bank: episodes, and lessons of others in quarantine; whole banks as a union where they are trusted.

        Args:
            bank: The bank.
            name: Where it all comes from, for the log.
            trusted: Whether what staged banks say of lessons, contexts and episodes is believed.

        Returns:
            Table to the number of rows that were new.
        """
        fresh: Counter[str] = Counter()
        for staged in self._banks:
            fresh.update(bank.merge(staged) if trusted else bring_foreign(bank, staged, name, self.notes))
        fresh.update(_bring_lessons(bank, self._lessons))
        return +fresh


def _bring_lessons(bank: Bank, lessons: Sequence[Foreign]) -> Counter[str]:
    known = {key for key, _ in bank.lessons(status=None)} if lessons else set[str]()
    before = _votes(bank) if lessons else 0
    found: set[str] = set()
    for source in dict.fromkeys((told.format, told.file) for told in lessons):
        those = [told.lesson for told in lessons if (told.format, told.file) == source]
        actor = f"import:{source[0]}"
        found |= set(bank.add_lessons(those, actor=actor, quarantined=True, reason=source[1]))
    votes = [vote for told in lessons for vote in _ballots(told)]
    if votes:
        store = store_of(bank)
        with store.writing():
            store.insert("votes", votes, known="skip")
    return Counter(lessons=len(found - known), votes=_votes(bank) - before if lessons else 0)


def _ballots(told: Foreign) -> Iterator[Row]:
    key = lesson_id(told.lesson)
    for value, count in ((1.0, told.helped), (-1.0, told.harmed)):
        for at in range(count):
            name = derived_id("vote", key, str(value), str(at))
            yield {"id": name, "lesson_id": key, "source": "import", "value": value, "about": None}


def _votes(bank: Bank) -> int:
    return sum(map(len, bank.votes().values()))


def _readable(bank: Bank) -> None:
    store = store_of(bank)
    for keys in chunks(bank.episode_ids(), _AT_ONCE):
        for row, turns in raw(store, keys):
            if is_whole(row, turns):  # what is not goes into quarantine
                episode_from(row, [turn | {"admissible": turn["content"]} for turn in turns])
    for key, lesson in bank.lessons(status=None):
        if lesson_id(lesson) != key:
            raise ValueError(f"lesson {key} does not match its id")
        bank.log(key)
    bank.contexts()
    bank.validations()
