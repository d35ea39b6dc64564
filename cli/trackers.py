"""Metrics to tensorboard, trackio or wandb, through accelerate's trackers, each in a process of its own. Knows no metric.

Whatever a tracker does (raise, hang, be gone, register what hangs at exit), the run neither waits for it nor changes: lines are handed over
and forgotten, and the process is killed in the end if it does not go. What could not be delivered is told once. metrics.jsonl has every
line in any case.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Mapping
from importlib import import_module
from multiprocessing import get_context, parent_process
from queue import Empty
from typing import TYPE_CHECKING, Any, Final, final

from cli.console import tell
from opcd_agents.errors import UnknownNameError

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess
    from multiprocessing.queues import Queue
    from pathlib import Path

TRACKERS: Final = {"tensorboard": "TensorBoardTracker", "trackio": "TrackioTracker", "wandb": "WandBTracker"}
_PATIENCE: Final = 30.0  # seconds that the end of a run waits for what is still to be delivered; a short one may end before its tracker is loaded

_POLL: Final = 5.0  # seconds between two looks at whether the run is still there
_PROCESSES: Final = (
    "WORLD_SIZE",
    "RANK",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "ACCELERATE_USE_FSDP",
)

_Line = tuple[int, Mapping[str, float]]


def refuse_unknown(names: Iterable[str]) -> None:
    """Refuse trackers that there are not.

    Raises:
        UnknownNameError: A name is none of `TRACKERS`.
    """
    for name in names:
        if name not in TRACKERS:
            raise UnknownNameError("tracker", name, TRACKERS)


@final
class Tracking:
    """Trackers of one run; use it as a context manager.

    Args:
        names: Keys of `TRACKERS`.
        folder: The run's folder, whose name the run has there.

    """

    def __init__(self, names: Iterable[str], folder: Path) -> None:
        spawn = get_context("spawn")  # a fork would have locks of torch's threads and nobody to release them
        self._processes: list[tuple[str, SpawnProcess, Queue[_Line | None]]] = []
        for name in names:
            lines: Queue[_Line | None] = spawn.Queue()
            process = spawn.Process(target=_deliver, args=(name, folder, lines), name=f"opcd-{name}", daemon=True)
            try:
                process.start()
            except OSError as error:
                tell(f"{name} failed and is left alone: {error!r:.200}")
            else:
                self._processes.append((name, process, lines))

    def __enter__(self) -> Tracking:
        return self

    def __exit__(self, *raised: object) -> None:
        for _, _, lines in self._processes:
            lines.put(None)
        until = time.monotonic() + _PATIENCE
        for name, process, lines in self._processes:
            process.join(max(0.0, until - time.monotonic()))
            if process.is_alive():
                tell(f"{name} does not answer: what it has not taken by now stands in metrics.jsonl")
                process.kill()
            lines.cancel_join_thread()  # nobody reads what is still in there

    def log(self, line: Mapping[str, Any]) -> None:
        """Hand over the numbers of a line of metrics."""
        numbers = dict(_numbers("", line))
        for _, _, lines in self._processes:
            lines.put((int(line["update"]), numbers))


def _deliver(name: str, folder: Path, lines: Queue[_Line | None]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the run's, which says when there are no more lines
    for variable in [one for one in os.environ if one in _PROCESSES or one.startswith("TORCHELASTIC_")]:
        del os.environ[variable]  # this process is none of those that share the run, and must not join them
    try:
        tracker = _started(name, folder)
        while (line := _next(lines)) is not None:
            tracker.log(line[1], step=line[0])
        tracker.finish()
    except Exception as error:  # whatever it is, it is the tracker's
        tell(f"{name} failed and is left alone: {error!r:.200}")


def _next(lines: Queue[_Line | None]) -> _Line | None:
    """The next line; None where there are no more, or the run was killed."""
    while True:
        try:
            return lines.get(timeout=_POLL)
        except Empty:
            parent = parent_process()
            if parent is None or not parent.is_alive():
                return None


def _started(name: str, folder: Path) -> Any:
    import_module("accelerate").PartialState()  # its loggers want to know that there is but one process
    kind: Any = getattr(import_module("accelerate.tracking"), TRACKERS[name])
    kind.main_process_only = False  # who logs is decided by the run
    tracker = kind(folder.name, folder) if kind.requires_logging_directory else kind(folder.name)
    tracker.start()
    return tracker


def _numbers(prefix: str, value: object) -> Iterable[tuple[str, float]]:
    """(name, number) pairs of a line; what stands in lists and objects has a name with slashes."""
    if isinstance(value, bool) or value is None:
        return
    if isinstance(value, (int, float)):
        yield prefix, float(value)
    elif isinstance(value, Mapping):
        for key, inner in value.items():  # pyright: ignore[reportUnknownVariableType]
            yield from _numbers(f"{prefix}/{key}".lstrip("/"), inner)  # pyright: ignore[reportUnknownArgumentType]
    elif isinstance(value, list):
        for number, inner in enumerate(value):  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
            yield from _numbers(f"{prefix}/{number}", inner)  # pyright: ignore[reportUnknownArgumentType]
