"""What the pocket models are taught: episodes of random houses and operators, with and without notes.

An episode is a conversation whose assistant parts say whether they are trained on. With notes the reply
recites them; without, the same form is filled with made-up facts, so that the base model has support on every fact.
Some turns of an episode with notes are guesses, and some recitals slip, both untrained: the models must
keep to the notes after a mistake of their own. Knows no token ids and no torch.
"""

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np

from opcd_agents.pocket.expert import Facts, Imagination, Notes, expert_reply, notes_of
from opcd_agents.pocket.houses import Goal, HouseState, sample_house
from opcd_agents.pocket.names import CONTAINERS, ROOMS
from opcd_agents.pocket.operators import sample_operator

MAX_TURNS = 9
RETRY = "wrong"  # what the environment says to a wrong answer


@dataclass(frozen=True)
class Span:
    """A piece of one message: its role, its text, whether the model is trained to say it."""

    role: str
    text: str
    trained: bool = False


Conversation = list[list[Span]]


@dataclass
class _Recital:
    """True notes with holes and slips: missing facts are imagined, a slip says something else once."""

    notes: Notes
    fallback: Imagination
    rng: np.random.Generator
    slip_rate: float
    slips: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    def place(self, name: str) -> str:
        """The noted place, a slip, or an imagined one."""
        if self.rng.random() < self.slip_rate:
            pool = CONTAINERS if self.notes.places.get(name) in CONTAINERS else self._rooms()
            return self._slip(name, str(self.rng.choice(pool)))
        return self.notes.places.get(name) or self.fallback.place(name)

    def above(self, room: str) -> str | None:
        """The noted neighbour, a slip, or an imagined one."""
        if self.rng.random() < self.slip_rate and room in self.notes.up and self.notes.up[room]:
            return self._slip(room, str(self.rng.choice(self._rooms())))
        return self.notes.up[room] if room in self.notes.up else self.fallback.above(room)

    def _rooms(self) -> list[str]:
        return list(self.notes.up) if self.rng.random() < 0.7 else list(ROOMS)

    def _slip(self, key: str, value: str) -> str:
        self.slips.append((key, value))
        return value


def house_episode(
    rng: np.random.Generator, largest: int, with_notes: bool, clean: bool = False, favoured: Collection[str] = ()
) -> Conversation:
    """One episode in a random house.

    Args:
        rng: Source of all chance.
        largest: Rooms of the house; up to so many where it is not clean.
        with_notes: Whether the model reads notes, or makes facts up.
        clean: Full notes and no mistakes.
        favoured: Names to build the house of before any other.
    """
    rooms = largest if clean or rng.random() < 0.5 else int(rng.integers(3, largest + 1))
    plan = sample_house(
        rng,
        held_out=False,
        rooms=rooms,
        containers=min(rooms, int(rng.integers(2, 6))),
        things=int(rng.integers(3, 10)),
        favoured=favoured,
    )
    notes = notes_of(plan) if clean else _thinned(notes_of(plan), rng)
    state, goal = _task(plan.start(str(rng.choice(plan.rooms))), rng)
    spans: Conversation = []
    if with_notes:
        spans.append([Span("system", noted(notes, rng))])
    stray = float(rng.choice([0.0, 0.25, 0.5], p=[0.5, 0.3, 0.2])) if with_notes and not clean else 0.0
    heard = f"{goal}\n{state.describe()}"
    for _ in range(MAX_TURNS):
        spans.append([Span("user", heard)])
        imagined = Imagination(state, goal, rng)
        if not with_notes or rng.random() < stray:
            reply = expert_reply(state, goal, imagined)
            spans.append([Span("assistant", reply, trained=not with_notes)])
        else:
            recital = _Recital(notes, imagined, rng, 0.0 if clean or rng.random() < 0.7 else 0.06)
            reply = _legal_reply(state, goal, recital)
            spans.append(_mark(reply, recital.slips))
        state, said_of_it = state.apply(reply.rsplit("> ", 1)[-1])
        if state.achieves(goal):
            break
        heard = f"{said_of_it}\n{state.describe()}".lstrip()
    return spans


def _legal_reply(state: HouseState, goal: Goal, facts: Facts) -> str:
    """A reply whose command is legal here: a slip may otherwise point at an exit that is not there."""
    while True:
        try:
            reply = expert_reply(state, goal, facts)
        except (StopIteration, KeyError, RecursionError):
            reply = ""
        if reply.rsplit("> ", 1)[-1] in state.commands():
            return reply
        getattr(facts, "slips", []).clear()
        if isinstance(facts, _Recital):
            facts.fallback = Imagination(state, goal, facts.rng)


def _mark(reply: str, slips: list[tuple[str, str]]) -> list[Span]:
    """Cut a reply so that the value of each slip is untrained."""
    parts: list[Span] = []
    done = at = 0
    for key, value in slips:
        at = reply.index(f"{key} {value}", at) + len(key)
        end = at + 1 + len(value)
        parts += [Span("assistant", reply[done:at], trained=True), Span("assistant", reply[at:end])]
        done, at = end, at + 1  # the value may be the key of the next slip
    return [*parts, Span("assistant", reply[done:], trained=True)]


def _thinned(notes: Notes, rng: np.random.Generator) -> Notes:
    """Notes with a few facts missing, once in a while: real extraction has holes."""
    if rng.random() > 0.15:
        return notes
    places = {k: v for k, v in notes.places.items() if rng.random() > 0.1}
    return Notes(places, notes.up)


def _task(state: HouseState, rng: np.random.Generator) -> tuple[HouseState, Goal]:
    while True:
        thing = str(rng.choice(list(state.plan.things)))
        container = str(rng.choice(list(state.plan.containers))) if rng.random() < 0.4 else None
        goal = Goal(thing, container)
        if not state.achieves(goal):
            return state, goal


def operator_episode(rng: np.random.Generator, with_notes: bool, tries: int = 2) -> Conversation:
    """One question on a random operator of the training side, with retries after wrong guesses."""
    operator = sample_operator(rng, held_out=False)
    a, b = (int(x) for x in rng.integers(0, 10, 2))
    spans: Conversation = [[Span("system", f"Notes: {operator.rule}")]] if with_notes else []
    heard = operator.question(a, b)
    for _ in range(tries):
        p, q = (int(x) for x in rng.integers(1, 10, 2))
        slip = with_notes and rng.random() < 0.1
        guess = slip or not with_notes
        reply = operator.reply(a, b, p, q) if guess else operator.reply(a, b)
        spans += [[Span("user", heard)], [Span("assistant", reply, trained=not slip)]]
        if int(reply.rsplit("> ", 1)[-1]) == operator(a, b):
            break
        heard = RETRY
    return spans


def recall_episode(rng: np.random.Generator, largest: int, questions: int = 6) -> Conversation:
    """Notes, then paths to recite: look-ups in their purest form, the part of a thought that is hard to learn."""
    plan = sample_house(rng, held_out=False, rooms=largest, containers=min(largest, 5))
    notes = notes_of(plan)
    spans: Conversation = [[Span("system", noted(notes, rng))]]
    for name in rng.permutation([*plan.things, *plan.containers])[:questions]:
        path = [str(name)]
        while path[-1] != "top":
            path.append((notes.places | notes.up)[path[-1]] or "top")
        spans += [[Span("user", f"Recall the {name}.")], [Span("assistant", f"So: {' '.join(path)}.", trained=True)]]
    return spans


def noted(notes: Notes, rng: np.random.Generator) -> str:
    """Notes as a context states them, in random order."""
    said = notes.sentences()
    return " ".join(["Notes:", *(said[i] for i in rng.permutation(len(said)))])


def episode(rng: np.random.Generator, largest: int) -> Conversation:
    """One episode of the mixture: recall 15 %, operators 13 %, else houses; with notes 75 %."""
    family, with_notes = rng.random(), rng.random() < 0.75
    if family < 0.15:
        return recall_episode(rng, largest)
    if family < 0.28:
        return operator_episode(rng, with_notes)
    return house_episode(rng, largest, with_notes)
