"""Trackers: lines arrive, and one that raises or hangs neither stops nor slows a run."""

import json
import os
import socket
import subprocess
import sys
import time
from ast import literal_eval
from pathlib import Path

import pytest

from cli import trackers
from opcd_agents.errors import UnknownNameError

ROOT = Path(__file__).parents[2]
LINE = {
    "update": 1,
    "loss": 0.5,
    "won": 1,
    "kl_by_turn": [0.1, None, 0.3],
    "kl_by_class": {"first": 0.2},
    "name": "x",
    "on": True,
}


WANDB = """
import atexit, pathlib, sys, time
told, fault = pathlib.Path({told!r}), {fault!r}

def heard(word):
    with told.open("a") as file:
        file.write(repr(word) + "\\n")
    if fault == "hangs at " + str(word if isinstance(word, str) else "log"):
        time.sleep(600)
    if fault == "raises at " + str(word if isinstance(word, str) else "log"):
        raise RuntimeError("no \\x1b[31mkey")

class Run:
    def log(self, values, step):
        heard((step, values))

    def finish(self):
        heard("finish")

def init(project):
    if fault == "hangs at exit":
        atexit.register(time.sleep, 600)
    heard("init")
    return Run()
"""
PROGRAM = """
import json, sys
from pathlib import Path
from cli import trackers

if __name__ == "__main__":
    trackers._PATIENCE = float(sys.argv[2])
    with trackers.Tracking(["wandb"], Path(sys.argv[1])) as tracking:
        for line in json.load(sys.stdin):
            tracking.log(line)
    print("over")
    sys.exit(7)
"""


KILLED = """
import os, sys
from pathlib import Path
from cli import trackers
if __name__ == "__main__":
    tracking = trackers.Tracking(["tensorboard"], Path(sys.argv[1]) / "run")
    print(tracking._processes[0][1].pid, flush=True)
    os.kill(os.getpid(), 9)
"""


def tracked(folder, lines, fault="", patience=60.0):
    """A run with a wandb that has a fault, in a process whose end is waited for: what wandb was told, and how the process ended."""
    (folder / "wandb.py").write_text(WANDB.format(told=str(folder / "told"), fault=fault))
    (folder / "program.py").write_text(PROGRAM)
    path = os.pathsep.join((str(folder), str(ROOT)))
    done = subprocess.run(
        [sys.executable, str(folder / "program.py"), str(folder), str(patience)], input=json.dumps(lines),
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    told = folder / "told"
    heard = [literal_eval(line) for line in told.read_text().splitlines()] if told.exists() else []
    return heard, done


def test_numbers_arrive_with_their_names(tmp_path):
    heard, done = tracked(tmp_path, [LINE, LINE | {"update": 2}])
    numbers = {"update": 1, "loss": 0.5, "won": 1, "kl_by_turn/0": 0.1, "kl_by_turn/2": 0.3, "kl_by_class/first": 0.2}
    assert heard == ["init", (1, numbers), (2, numbers | {"update": 2}), "finish"]
    assert (done.returncode, done.stdout, done.stderr) == (7, "over\n", "")


@pytest.mark.parametrize("method", ["init", "log", "finish"])
def test_one_that_raises_is_left_alone(tmp_path, method):
    _, done = tracked(tmp_path, [LINE] * 3, f"raises at {method}")
    assert (done.returncode, done.stdout) == (7, "over\n")
    assert "wandb failed and is left alone" in done.stderr
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize("method", ["init", "log", "exit"])
def test_one_that_hangs_holds_nothing_up(tmp_path, method):
    """Not even at the end of the process, and however many lines it did not take."""
    heard, done = tracked(tmp_path, [LINE] * 2000, f"hangs at {method}", patience=15.0 if method == "exit" else 1.0)
    assert (done.returncode, done.stdout) == (7, "over\n")
    assert "does not answer" in done.stderr
    assert ("finish" in heard) is (method == "exit")


def test_tensorboard_itself(tmp_path):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="the extra `trackers`"
    )
    with trackers.Tracking(["tensorboard"], tmp_path / "run") as tracking:
        for update in (1, 2):
            tracking.log(LINE | {"update": update, "loss": 1 / update})
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "run")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 1.0), (2, 0.5)]


def test_an_unknown_one_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'wandb'"):
        trackers.refuse_unknown(["wandbb"])


def test_a_tracker_joins_no_group_of_processes(tmp_path, monkeypatch):
    """Its process is begun by the first of several, whose address and number it must not take for its own."""
    events = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="the extra `trackers`"
    )
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        group = {
            "WORLD_SIZE": "2",
            "RANK": "0",
            "LOCAL_RANK": "0",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(taken.getsockname()[1]),
        }
        for name, value in group.items():
            monkeypatch.setenv(name, value)
        with trackers.Tracking(["tensorboard"], tmp_path / "run") as tracking:
            tracking.log(LINE)
    told = events.EventAccumulator(str(tmp_path / "run" / "run")).Reload()
    assert [e.value for e in told.Scalars("loss")] == [LINE["loss"]]


def test_a_tracker_does_not_outlive_a_run_that_was_killed(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(KILLED)
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == -9
    child, until = Path("/proc") / done.stdout.strip(), time.monotonic() + 40
    while child.exists() and "Z" not in (child / "stat").read_text().split(")")[1][:3] and time.monotonic() < until:
        time.sleep(0.2)
    assert time.monotonic() < until
