"""Trackers: lines arrive, and one that raises or hangs neither stops nor slows a run."""

import time
from typing import ClassVar

import pytest

from cli import trackers
from opcd_agents.errors import UnknownNameError

LINE = {
    "update": 1,
    "loss": 0.5,
    "won": 1,
    "kl_by_turn": [0.1, None, 0.3],
    "kl_by_class": {"first": 0.2},
    "name": "x",
    "on": True,
}


class Tracker:
    """As accelerate's: started, told lines, finished."""

    told: ClassVar[list[object]] = []
    requires_logging_directory = False
    main_process_only = True

    def __init__(self, name):
        self.name = name

    def start(self):
        self.told.append("start")

    def log(self, values, step):
        self.told.append((step, values))

    def finish(self):
        self.told.append("finish")


@pytest.fixture
def tracker(monkeypatch):
    kind = type("Own", (Tracker,), {"told": []})
    monkeypatch.setattr("accelerate.tracking.WandBTracker", kind)
    return kind


def test_numbers_arrive_with_their_names(tracker, tmp_path):
    with trackers.Tracking(["wandb"], tmp_path) as tracking:
        tracking.log(LINE)
        tracking.log(LINE | {"update": 2})
    numbers = {"update": 1, "loss": 0.5, "won": 1, "kl_by_turn/0": 0.1, "kl_by_turn/2": 0.3, "kl_by_class/first": 0.2}
    assert tracker.told == ["start", (1, numbers), (2, numbers | {"update": 2}), "finish"]


@pytest.mark.parametrize("method", ["start", "log", "finish"])
def test_one_that_raises_is_left_alone(tracker, tmp_path, monkeypatch, method, capsys):
    def fail(*args, **kwargs):
        raise RuntimeError("no \x1b[31mkey")

    monkeypatch.setattr(tracker, method, fail)
    with trackers.Tracking(["wandb"], tmp_path) as tracking:
        for update in range(3):
            tracking.log(LINE | {"update": update})
    said = capsys.readouterr().err
    assert "wandb failed and is left alone" in said
    assert "\x1b" not in said


@pytest.mark.parametrize("method", ["start", "log", "finish"])
def test_one_that_hangs_holds_nothing_up(tracker, tmp_path, monkeypatch, method, capsys):
    monkeypatch.setattr(tracker, method, lambda *args, **kwargs: time.sleep(60))
    monkeypatch.setattr(trackers, "_PATIENCE", 0.2)
    began = time.perf_counter()
    with trackers.Tracking(["wandb"], tmp_path) as tracking:
        for update in range(1000):
            tracking.log(LINE | {"update": update})
    assert time.perf_counter() - began < 5
    assert "does not answer" in capsys.readouterr().err


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
