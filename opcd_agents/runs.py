"""A run folder: what was asked, what happened line by line, and files that are whole or not there.

Layout: `config.json`, `metrics.jsonl`, `checkpoint/`, `model/`, `report.html`. Knows nothing of training.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from opcd_agents.errors import RunError


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that after a crash either the old or the new content is there, never a part.

    Raises:
        RunError: The file cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_vacant(path: Path) -> None:
    """Make a folder that a run can begin in.

    Raises:
        RunError: It holds a run, or cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        if (path / "config.json").exists():
            raise RunError(f"{path} already holds a run; choose another --out, or continue it with --resume {path}")
    except OSError as error:
        raise RunError(f"cannot make the run folder {path}: {error.strerror or error}") from error


class RunFolder:
    """One run on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, config: Mapping[str, Any]) -> RunFolder:
        """Make a new run.

        Args:
            path: Where; must not hold another run.
            config: Everything needed to repeat it; JSON values only.

        Raises:
            RunError: The folder holds a run, or cannot be written.
        """
        make_vacant(path)
        run = cls(path)
        write_atomic(path / "config.json", json.dumps(dict(config), indent=1).encode())
        return run

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open an existing run.

        Raises:
            RunError: There is no run.
        """
        if not os.path.isfile(path / "config.json"):  # False, not an error, where the path cannot even be asked about
            raise RunError(f"wanted a run folder with config.json, got {path}")
        return cls(path)

    @property
    def config(self) -> dict[str, Any]:
        """What the run was asked to do.

        Raises:
            RunError: It cannot be read, or is not what `create` wrote.
        """
        try:
            found: Any = json.loads((self.path / "config.json").read_text())
        except (OSError, ValueError) as error:
            raise RunError(f"cannot read {self.path / 'config.json'}: {error}") from error
        if not isinstance(found, dict):
            raise RunError(f"{self.path / 'config.json'} is damaged: wanted an object, got {found!r:.40}")
        return cast("dict[str, Any]", found)

    @property
    def identity(self) -> str:
        """sha256 of what the run was asked to do, as it stands on disk.

        Raises:
            RunError: It cannot be read.
        """
        try:
            return hashlib.sha256((self.path / "config.json").read_bytes()).hexdigest()
        except OSError as error:
            raise RunError(f"cannot read {self.path / 'config.json'}: {error}") from error

    @property
    def checkpoint(self) -> Path:
        """Where the checkpoint lies, if there is one."""
        return self.path / "checkpoint"

    def log(self, line: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        try:
            with (self.path / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(dict(line)) + "\n")
        except OSError as error:
            raise RunError(f"cannot write {self.path / 'metrics.jsonl'}: {error.strerror or error}") from error

    def metrics(self) -> list[dict[str, Any]]:
        """All whole lines of metrics.jsonl.

        Raises:
            RunError: One of them is damaged.
        """
        path = self.path / "metrics.jsonl"
        if not path.is_file():
            return []
        try:
            lines = path.read_text().split("\n")[:-1]  # what follows the last line end is torn
            found = [json.loads(line) for line in lines]
            return [{**line, "update": int(line["update"])} for line in found]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise RunError(f"{path} is damaged ({error!r:.80}); begin a new run") from error

    def truncate(self, updates: int) -> None:
        """Forget lines of updates after `updates`: a resumed run writes them again."""
        kept = [line for line in self.metrics() if line["update"] <= updates]
        write_atomic(self.path / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in kept).encode())
