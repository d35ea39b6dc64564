"""What the teacher reads in an episode: always the same text, one of several by chance, or the task's own solution.

Experiential knowledge, system prompts and reference solutions are three sources of one thing. Knows no bank and no model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np

from opcd_agents.errors import UsageError
from opcd_agents.types import Task

SOLUTION: Final = "Here is a reference solution:\n{solution}\n\nAfter understanding it, solve the problem in your own words, step by step."


class Contexts(ABC):
    """Chooses what the teacher reads."""

    @abstractmethod
    def __call__(self, task: Task, rng: np.random.Generator) -> str:
        """The context of one episode.

        Args:
            task: What is played.
            rng: The update's chance.
        """


@final
@dataclass(frozen=True)
class Nothing(Contexts):
    """No context, for methods that read none (`Recipe.reads_context`)."""

    def __call__(self, task: Task, rng: np.random.Generator) -> str:
        """See `Contexts`."""
        return ""


@final
@dataclass(frozen=True)
class Fixed(Contexts):
    """The same text in every episode."""

    text: str

    def __post_init__(self) -> None:
        _refuse_empty([self.text])

    def __call__(self, task: Task, rng: np.random.Generator) -> str:
        """See `Contexts`."""
        return self.text


@final
@dataclass(frozen=True)
class Drawn(Contexts):
    """One of several texts an episode (OEL, arXiv 2603.16856, draws from ten chains; the released OPCD code draws anew each turn)."""

    texts: Sequence[str]

    def __post_init__(self) -> None:
        _refuse_empty(self.texts)

    def __call__(self, task: Task, rng: np.random.Generator) -> str:
        """See `Contexts`."""
        return self.texts[int(rng.integers(len(self.texts)))]


@final
@dataclass(frozen=True)
class Solutions(Contexts):
    """The task's reference solution, which `task.kwargs["solution"]` holds (OPSD, arXiv 2601.18734; the wording is ours)."""

    template: str = SOLUTION

    def __call__(self, task: Task, rng: np.random.Generator) -> str:
        """See `Contexts`.

        Raises:
            UsageError: The task has none.
        """
        solution = task.kwargs.get("solution")
        if not isinstance(solution, str) or not solution.strip():
            raise UsageError(f"wanted a reference solution with every task, got a task of {task.scope!r} without one")
        return self.template.replace("{solution}", solution)


def _refuse_empty(texts: Sequence[str]) -> None:
    # The released OPCD code goes on with an empty context where the file of experience is missing.
    if not texts or not all(text.strip() for text in texts):
        raise UsageError(
            "wanted a context for the teacher to read, got an empty one; make one with `opcd bank context`"
        )
