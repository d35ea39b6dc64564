"""A run folder holds one run; a file is whole or not there; a torn line is no line."""

import resource
import signal
from contextlib import contextmanager

import pytest

from opcd_agents.errors import RunError
from opcd_agents.runs import RunFolder, write_atomic


@contextmanager
def full_disk(size):
    """No file may grow beyond `size` bytes: what a full disk is like."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path / "run", {"seed": 3})


def test_a_run_remembers_what_was_asked(tmp_path, run):
    assert RunFolder.open(tmp_path / "run").config == {"seed": 3}
    assert run.metrics() == []


def test_a_second_run_is_refused(tmp_path, run):
    with pytest.raises(RunError, match=r"already holds a run.*--resume"):
        RunFolder.create(run.path, {"seed": 4})
    assert run.config == {"seed": 3}


def test_a_folder_with_other_things_in_it_is_taken(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert RunFolder.create(tmp_path, {}).config == {}
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("below", ["", "run", "deep/er"])
def test_a_file_in_the_way_is_named(tmp_path, below):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match="cannot make the run folder"):
        RunFolder.create(tmp_path / "file" / below, {})
    assert (tmp_path / "file").read_text() == "mine"


def test_a_path_that_cannot_be_asked_about_is_named(tmp_path):
    """As with a folder that another user keeps closed, the question alone is an error."""
    with pytest.raises(RunError, match="cannot make the run folder"):
        RunFolder.create(tmp_path / ("x" * 300), {})
    with pytest.raises(RunError, match="wanted a run folder"):
        RunFolder.open(tmp_path / ("x" * 300))


def test_a_folder_without_a_run_cannot_be_opened(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(RunError, match=r"wanted a run folder with config\.json"):
            RunFolder.open(path)


def test_a_damaged_config_is_named(run):
    (run.path / "config.json").write_text('{"seed": ')
    with pytest.raises(RunError, match="cannot read"):
        _ = run.config


def test_lines_come_back_in_order(run):
    for update in (1, 2, 3):
        run.log({"update": update, "loss": 0.5})
    assert [line["update"] for line in run.metrics()] == [1, 2, 3]


@pytest.mark.parametrize("torn", ['{"update": 3, "lo', '{"update": 3}', "{", "\0\0\0"])
def test_a_torn_last_line_is_no_line(run, torn):
    run.log({"update": 1})
    run.log({"update": 2})
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write(torn)
    assert [line["update"] for line in run.metrics()] == [1, 2]
    run.truncate(2)
    run.log({"update": 3, "loss": 0.25})
    assert run.metrics() == [{"update": 1}, {"update": 2}, {"update": 3, "loss": 0.25}]


def test_lines_after_an_update_are_forgotten(run):
    for update in range(1, 6):
        run.log({"update": update})
    run.truncate(3)
    assert [line["update"] for line in run.metrics()] == [1, 2, 3]
    run.truncate(0)
    assert run.metrics() == []


def test_forgetting_needs_no_lines(run):
    run.truncate(0)
    assert run.metrics() == []


def test_a_file_is_replaced(tmp_path):
    path = tmp_path / "file"
    for data in (b"old", b"newer and longer", b""):
        write_atomic(path, data)
        assert path.read_bytes() == data
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, b"old")
    with full_disk(100), pytest.raises(RunError, match=r"cannot write .*File too large"):
        write_atomic(path, b"x" * 5000)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_in_the_way_of_a_file_is_named(tmp_path):
    (tmp_path / "file").mkdir()
    with pytest.raises(RunError, match=r"cannot write .*directory"):
        write_atomic(tmp_path / "file", b"x")
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(RunError, match=r"cannot write .*No such file"):
        write_atomic(tmp_path / "nowhere" / "file", b"x")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match=r"cannot write .*Not a directory"):
        write_atomic(tmp_path / "file" / "below", b"x")


def test_a_line_that_does_not_fit_is_an_error(run):
    with full_disk(100), pytest.raises(RunError, match=r"cannot write .*metrics\.jsonl"):
        run.log({"update": 1, "text": "x" * 5000})
    assert run.metrics() == []


@pytest.mark.parametrize("text", ["[]", "3", '"x"', "{", ""])
def test_a_config_that_is_no_object_is_named(run, text):
    (run.path / "config.json").write_text(text)
    with pytest.raises(RunError, match=r"config\.json"):
        _ = run.config


@pytest.mark.parametrize("line", ["garbage", "[]", "{}", '{"update": "x"}', "3"])
def test_damaged_lines_are_named(run, line):
    run.log({"update": 1})
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(RunError, match="damaged"):
        run.metrics()
