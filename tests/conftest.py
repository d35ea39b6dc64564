"""What tests of every kind share: `opcd` called in this process, and one folder of compiled games."""

import io
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from cli.main import main


class Result(NamedTuple):
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


Opcd = Callable[..., Result]


@pytest.fixture(scope="session", autouse=True)
def _games() -> Iterator[None]:
    """Compiled games are named by content, so one folder serves every session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPCD_CACHE", str(Path(tempfile.gettempdir()) / f"opcd-test-games-{os.getuid()}"))
        yield


@pytest.fixture
def opcd(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Opcd:
    """Run `opcd ARGS` with a script on stdin, and give back how it went."""

    def run(*args: object, stdin: str = "") -> Result:
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(arg) for arg in args])
        printed = capsys.readouterr()
        return Result(int(end.value.code or 0), printed.out, printed.err)

    return run
