"""What tests of every kind share: `opcd` called in this process, and one folder of compiled games."""

import io
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
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


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c() -> Iterator[None]:
    """What runs in the background of a shell ignores Ctrl-C, and children inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


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


def _inform6() -> str:
    """Debian's inform6, else the same compiler as TextWorld brings it."""
    if found := shutil.which("inform6"):
        return found
    spec = find_spec("textworld")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    root = Path(spec.submodule_search_locations[0])
    return str(next(path for path in root.glob("thirdparty/**/inform6") if path.is_file()))


def _compiled(name: str, version: int, folder: Path) -> Path:
    """A game of the z-machine that is none of TextWorld's, compiled from its Inform source."""
    shutil.copy(Path(__file__).with_name("data") / f"{name}.inf", folder)
    story = folder / f"{name}.z{version}"
    subprocess.run([_inform6(), f"-v{version}", f"{name}.inf", story.name], cwd=folder, check=True, capture_output=True)
    return story


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Path]:
    """Compiles a source of tests/data for a version of the z-machine."""
    return lambda name, version: _compiled(name, version, tmp_path_factory.mktemp(name))


@pytest.fixture(scope="session")
def story(compiled: Callable[[str, int], Path]) -> Path:
    """A game that crashes and hangs."""
    return compiled("vault", 5)
