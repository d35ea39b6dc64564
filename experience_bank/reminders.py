"""Lessons put in front of what a player sees: those that fit its task, or each moment of it. Knows no bank and no model.

A player that is reminded is a teacher: what it reads stands in its prompt, so an episode of its own shows the lessons, and a
student is not to be trained on the very rows it read.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from enum import StrEnum
from typing import Final, final

from experience_bank.document import line
from experience_bank.retrieve import Index
from opcd_agents.types import Info, Policy, Reply, Session, Task

_HEAD: Final = "Notes that may fit here (they may be wrong):"


class When(StrEnum):
    """When a player is reminded: once a task, by its first observation, or before every reply."""

    TASK = "task"
    STATE = "state"


@final
class Reminded:
    """A policy whose observations have fitting lessons in front of them.

    Args:
        inner: Who plays.
        index: The lessons.
        tasks: What is played, in the order of the conversations: no task is reminded of what only itself has taught.
        when: How often.
        count_tokens: Length of a text in tokens of who plays.
        budget: Most tokens of what is put in front of one observation; no lesson is cut.
        count: Most lessons at a time.
        scopes: Scopes that may be drawn from; None: any.
    """

    def __init__(
        self,
        inner: Policy,
        index: Index,
        tasks: Sequence[Task],
        when: When,
        count_tokens: Callable[[str], int],
        budget: int = 512,
        count: int = 5,
        scopes: Collection[str] | None = None,
    ) -> None:
        self._inner = inner
        self._index = index
        self._tasks = tasks
        self.when = when
        self._count_tokens = count_tokens
        self._budget = budget
        self._count = count
        self._scopes = scopes

    @property
    def name(self) -> str:
        """Who plays."""
        return self._inner.name

    @property
    def weights(self) -> str:
        """The weights of who plays."""
        return self._inner.weights

    def begin(self, context: str | None, seeds: Sequence[int]) -> Session:
        """Start one conversation a task."""
        return _Reminding(self, self._inner.begin(context, seeds))

    def reminded(self, slot: int, observation: str) -> str:
        """What the player of a task reads instead of an observation."""
        fit = self._index.search(observation, self._tasks[slot].fingerprint, self._count, self._scopes)
        said: list[str] = []
        for _, lesson in fit:
            told = line(lesson.statement)
            more = [*said, f"- {told}"]
            if told and self._count_tokens("\n".join([_HEAD, *more])) <= self._budget:
                said = more
        return "\n".join([_HEAD, *said, "", observation]) if said else observation


class _Reminding:
    """A session whose player is reminded."""

    def __init__(self, policy: Reminded, inner: Session) -> None:
        self._policy = policy
        self._inner = inner
        self._begun: set[int] = set()

    def reply(self, heard: Mapping[int, tuple[str, Info]]) -> dict[int, Reply]:
        """Remind, and let the player answer."""
        told = {slot: (self._told(slot, text), info) for slot, (text, info) in heard.items()}
        self._begun |= heard.keys()
        return self._inner.reply(told)

    def _told(self, slot: int, text: str) -> str:
        again = slot in self._begun and self._policy.when is When.TASK
        return text if again else self._policy.reminded(slot, text)
