"""Episodes as mining reads them: lifted commands, what was possible before each, and what it brought.

Only what the player saw and did is looked at: observations, commands, rewards, the outcome, and the commands that it was told would do
something. Of a task only its fingerprint (which game) and its scope (what lessons hold for) are read.
"""

import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import Final, final

from experience_bank.mining.lifting import Act, Lifter, lifters
from opcd_agents.errors import UsageError
from opcd_agents.types import Episode, Split, Turn

MOST_EVIDENCE: Final = 8
"""Turns that a mined lesson cites at most."""

CONSISTENT: Final = 0.9
"""Share of its times in which what is always so may be seen."""

_MOST_TOLD: Final = 300
_SLOT: Final = re.compile(r"\{[0-9*]\}")

Evidence = tuple[tuple[str, int], ...]


def refuse_test(key: str, episode: Episode) -> None:
    """Refuse to learn from an episode by which players are judged."""
    if episode.task.split is Split.TEST:
        raise UsageError(f"episode {key} is of the test split; learn from train or validation episodes only")


@dataclass(frozen=True)
class Play:
    """One episode, lifted.

    Attributes:
        key: The episode's id.
        episode: The episode.
        acts: The command of each turn; None where it was refused or is no plain command.
        possible: What could be done before each turn; empty where the player was not told.
    """

    key: str
    episode: Episode
    acts: tuple[Act | None, ...]
    possible: tuple[frozenset[Act], ...]

    @property
    def done(self) -> Iterator[tuple[int, Act]]:
        """The commands that were understood, with their turns: where the player was told what is possible, those alone."""
        for turn, (act, possible) in enumerate(zip(self.acts, self.possible, strict=True)):
            if act is not None and (act in possible or not possible):
                yield turn, act

    @property
    def steps(self) -> Iterator["Step"]:
        """The turns that say what a command changed: it was possible, and what is possible was told before and after."""
        for turn, act in self.done:
            before, after = self.possible[turn], self.possible[turn + 1] if turn + 1 < len(self.possible) else ()
            if before and after:
                yield Step(self.key, turn, act, before, after)


@dataclass(frozen=True)
class Step:
    """A command, and what could be done before and after it."""

    key: str
    turn: int
    act: Act
    before: frozenset[Act]
    after: frozenset[Act]


@final
class Game:
    """All plays of one game, and what was ever possible in it."""

    def __init__(self, plays: Sequence[Play], lifter: Lifter) -> None:
        self.plays = plays
        self.lifter = lifter
        self._over: dict[tuple[str, ...], list[Act]] = defaultdict(list)
        self._related: dict[Act, tuple[tuple[Act, str], ...]] = {}
        for act in sorted({act for play in plays for state in play.possible for act in state}):
            self._over[act.things].append(act)

    @property
    def states(self) -> dict[frozenset[Act], tuple[str, int]]:
        """What was possible at one time or another, and the turn that shows it first."""
        found: dict[frozenset[Act], tuple[str, int]] = {}
        for play in self.plays:
            for turn, state in enumerate(play.possible):
                found.setdefault(state, (play.key, turn))
        return found

    def related(self, act: Act) -> tuple[tuple[Act, str], ...]:
        """What is ever possible here over things of `act`, each with its template in the slots of `act`.

        For `insert coin into box`: (`take coin from box`, `take {0} from {1}`), (`open box`, `open {1}`) and so on. A command without
        things is related to those without things.
        """
        if act not in self._related:
            sizes = range(1, len(act.things) + 1) if act.things else range(1)
            some = [things for size in sizes for things in permutations(act.things, size)]
            found = [(other, worded(other, act)) for things in some for other in self._over.get(things, ())]
            self._related[act] = tuple(pair for pair in found if pair[0] != act)
        return self._related[act]


def worded(other: Act, act: Act) -> str:
    """The template of `other` in the slots of `act`; what is no thing of `act` is `{*}`."""
    slots = {thing: f"{{{index}}}" for index, thing in reversed(list(enumerate(act.things)))}
    return other.template.format(*(slots.get(thing, "{*}") for thing in other.things))


def normal(words: str) -> tuple[str, tuple[str, ...]]:
    """A template that is worded in another's slots, as it is by itself, and those slots: `open {1}` is `open {0}` over ({1},)."""
    slots = tuple(_SLOT.findall(words))
    numbers = iter(range(len(slots)))
    return _SLOT.sub(lambda _: f"{{{next(numbers)}}}", words), slots


def lifted(episodes: Iterable[tuple[str, Episode]]) -> list[Game]:
    """The games of one family, lifted together; ordered by fingerprint, their plays by id."""
    by_game: dict[str, list[tuple[str, Episode]]] = defaultdict(list)
    for key, episode in sorted(episodes, key=lambda pair: pair[0]):
        by_game[episode.task.fingerprint].append((key, episode))
    known = lifters({game: _said(told) for game, told in by_game.items()})
    return [
        Game([_play(key, episode, known[game]) for key, episode in by_game[game]], known[game])
        for game in sorted(by_game)
    ]


def _said(told: Iterable[tuple[str, Episode]]) -> set[str]:
    said: set[str] = set()
    for _, episode in told:
        for turn in episode.turns:
            said.update(_told(turn))
            if turn.invalid is None:
                said.add(turn.action)
    return said


def _told(turn: Turn) -> tuple[str, ...]:
    """What the player was told is possible. A list that no game gives is not read: half of it would tell what is impossible."""
    return turn.admissible if len(turn.admissible) <= _MOST_TOLD else ()


def _play(key: str, episode: Episode, lifter: Lifter) -> Play:
    turns = episode.turns
    acts = tuple(lifter.lift(turn.action) if turn.invalid is None else None for turn in turns)
    sets: dict[tuple[str, ...], frozenset[Act]] = {}
    for turn in turns:
        if turn.admissible not in sets:
            told = (lifter.lift(command) for command in _told(turn))
            sets[turn.admissible] = frozenset(act for act in told if act is not None)
    return Play(key, episode, acts, tuple(sets[turn.admissible] for turn in turns))


@dataclass
class Tally:
    """In how many cases something held, of how many, and the first turn of each episode that shows it.

    A case is what may happen again and again and teaches little the second time, such as one command in one game. It holds where
    at least `CONSISTENT` of its times did.
    """

    _cases: dict[Hashable, list[int]] = field(default_factory=dict[Hashable, list[int]])
    _shown: dict[str, int] = field(default_factory=dict[str, int])

    def add(self, case: Hashable, holds: bool, key: str, turn: int) -> None:
        """Count one more time of a case."""
        counts = self._cases.setdefault(case, [0, 0])
        counts[0] += holds
        counts[1] += 1
        if holds:
            self._shown[key] = min(turn, self._shown.get(key, turn))

    @property
    def held(self) -> int:
        """In how many cases it held."""
        return sum(held >= CONSISTENT * times for held, times in self._cases.values())

    @property
    def cases(self) -> int:
        """How many cases there were."""
        return len(self._cases)

    @property
    def always(self) -> bool:
        """Whether it held every single time."""
        return all(held == times for held, times in self._cases.values())

    @property
    def episodes(self) -> int:
        """How many episodes show it."""
        return len(self._shown)

    @property
    def evidence(self) -> Evidence:
        """One turn an episode, of at most `MOST_EVIDENCE` episodes."""
        return tuple(sorted(self._shown.items())[:MOST_EVIDENCE])
