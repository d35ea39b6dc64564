"""Metrics to tensorboard, trackio or wandb, through accelerate's trackers, in a thread of their own. Knows no metric.

Whatever a tracker does (raise, hang, be gone), the run neither waits for it nor changes: lines are handed over and forgotten. What could
not be delivered is told once. metrics.jsonl has every line in any case.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, final

from cli.console import tell
from opcd_agents.errors import UnknownNameError

TRACKERS: Final = {"tensorboard": "TensorBoardTracker", "trackio": "TrackioTracker", "wandb": "WandBTracker"}
_PATIENCE: Final = 5.0  # seconds that the end of a run waits for what is still to be delivered

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
        self._threads: list[tuple[str, threading.Thread, SimpleQueue[_Line | None]]] = []
        for name in names:
            lines: SimpleQueue[_Line | None] = SimpleQueue()
            thread = threading.Thread(target=_deliver, args=(name, folder, lines), name=f"opcd-{name}", daemon=True)
            thread.start()
            self._threads.append((name, thread, lines))

    def __enter__(self) -> Tracking:
        return self

    def __exit__(self, *raised: object) -> None:
        for _, _, lines in self._threads:
            lines.put(None)
        for name, thread, _ in self._threads:
            thread.join(_PATIENCE)
            if thread.is_alive():
                tell(f"{name} does not answer: what it has not taken by now stands in metrics.jsonl")

    def log(self, line: Mapping[str, Any]) -> None:
        """Hand over the numbers of a line of metrics."""
        numbers = dict(_numbers("", line))
        for _, _, lines in self._threads:
            lines.put((int(line["update"]), numbers))


def _deliver(name: str, folder: Path, lines: SimpleQueue[_Line | None]) -> None:
    try:
        tracker = _started(name, folder)
        while (line := lines.get()) is not None:
            tracker.log(line[1], step=line[0])
        tracker.finish()
    except Exception as error:  # whatever it is, it is the tracker's
        tell(f"{name} failed and is left alone: {error!r:.200}")


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
