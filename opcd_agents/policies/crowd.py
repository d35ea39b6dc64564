"""Work that waits, done side by side by threads that nobody has to wait for. Knows not what they do."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Mapping
from queue import SimpleQueue
from threading import Thread
from typing import Any, Final, TypeVar

_MOST: Final = 64  # threads

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


def at_once(jobs: Mapping[K, Callable[[], T]]) -> dict[K, T]:
    """Do all jobs, some at a time, and return what each gave.

    What one raises is raised here, as is an interrupt; what is on its way then is left behind and holds up neither this
    call nor the end of the process, which the threads of `concurrent.futures` would.
    """
    waiting, done = deque(jobs), SimpleQueue[tuple[K, Any, BaseException | None]]()
    for _ in range(min(len(jobs), _MOST)):
        Thread(target=_work, args=(jobs, waiting, done), daemon=True).start()
    found: dict[K, T] = {}
    try:
        for _ in jobs:
            key, what, error = done.get()
            if error is not None:
                raise error
            found[key] = what
    finally:
        waiting.clear()  # nobody will read what has not begun
    return {key: found[key] for key in jobs}


def _work(
    jobs: Mapping[K, Callable[[], Any]],
    waiting: deque[K],
    done: SimpleQueue[tuple[K, Any, BaseException | None]],
) -> None:
    while waiting:
        try:
            key = waiting.popleft()
        except IndexError:  # another thread was faster
            return
        try:
            done.put((key, jobs[key](), None))
        except BaseException as error:
            done.put((key, None, error))
