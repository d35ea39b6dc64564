"""The lessons that fit a task or a moment of it: by their words (BM25, SQLite's FTS5), or by vectors of somebody's model.

What was learnt only from the very task that is being played is never given: it would be the answer, not experience.
Knows no model: whoever wants vectors hands in what makes them.
"""

import re
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from opcd_agents.types import Lesson

_LONGEST: Final = 200  # words of a query

Known = tuple[str, Lesson]
Embed = Callable[[Sequence[str]], NDArray[Any]]  # texts to vectors [texts, size]


class Index(ABC):
    """Lessons that can be asked for.

    Args:
        lessons: (id, lesson) pairs.
        tasks: Episode id -> fingerprint of its task, for every episode the lessons cite.
    """

    def __init__(self, lessons: Sequence[Known], tasks: Mapping[str, str]) -> None:
        self._lessons = tuple(lessons)
        self._shown = [frozenset(tasks[episode] for episode, _ in lesson.evidence) for _, lesson in lessons]

    def search(self, text: str, task: str, count: int = 3, scopes: Collection[str] | None = None) -> list[Known]:
        """The lessons that fit best, the best first.

        Args:
            text: What is asked: an objective, an observation.
            task: Fingerprint of the task that is being played.
            count: Most lessons.
            scopes: Scopes that may be drawn from; None: any.
        """
        allowed = (n for n in self._ranked(text) if self._allowed(n, task, scopes))
        return [self._lessons[n] for n, _ in zip(allowed, range(count), strict=False)]

    @abstractmethod
    def _ranked(self, text: str) -> Iterable[int]:
        """Numbers of the lessons that fit at all, the best first."""

    def _allowed(self, number: int, task: str, scopes: Collection[str] | None) -> bool:
        elsewhere = not self._shown[number] or self._shown[number] - {task}
        return bool(elsewhere) and (scopes is None or self._lessons[number][1].scope in scopes)


@final
class WordIndex(Index):
    """Lessons by their words; whatever else a query holds is passed over."""

    def __init__(self, lessons: Sequence[Known], tasks: Mapping[str, str]) -> None:
        super().__init__(lessons, tasks)
        self._db = sqlite3.connect(":memory:")
        self._db.execute("CREATE VIRTUAL TABLE words USING fts5(statement, tokenize = 'porter unicode61')")
        said = ((number, lesson.statement) for number, (_, lesson) in enumerate(lessons))
        self._db.executemany("INSERT INTO words(rowid, statement) VALUES(?, ?)", said)

    def close(self) -> None:
        """Let go of the index."""
        self._db.close()

    def _ranked(self, text: str) -> Iterable[int]:
        words = list(dict.fromkeys(re.findall(r"\w+", text.lower())))[:_LONGEST]
        if not words:
            return []
        query = " OR ".join(f'"{word}"' for word in words)
        found = self._db.execute("SELECT rowid FROM words WHERE words MATCH ? ORDER BY bm25(words), rowid", [query])
        return [number for (number,) in found]


@final
class VectorIndex(Index):
    """Lessons by the cosine of their vectors with the query's: all of them fit, some better.

    Brute force: 50,000 lessons of 384 numbers take some 8 ms.

    Args:
        lessons: (id, lesson) pairs.
        tasks: Episode id -> fingerprint of its task, for every episode the lessons cite.
        embed: Makes vectors of texts.
    """

    def __init__(self, lessons: Sequence[Known], tasks: Mapping[str, str], embed: Embed) -> None:
        super().__init__(lessons, tasks)
        self._embed = embed
        self._vectors = self._unit([lesson.statement for _, lesson in lessons]) if lessons else np.zeros((0, 1))

    def _ranked(self, text: str) -> Iterable[int]:
        if not len(self._vectors):
            return []
        return np.argsort(-(self._vectors @ self._unit([text])[0]), kind="stable").tolist()

    def _unit(self, texts: Sequence[str]) -> NDArray[Any]:
        vectors = np.asarray(self._embed(texts), dtype=np.float32)
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
