"""Intervals against published values; the gap against cases that can be worked out by hand."""

import math

import pytest

from opcd_agents.scores import gap_closed, score, tally, wilson
from opcd_agents.types import Episode, Outcome, Provenance, Split, Task


def episode(fingerprint: str, outcome: Outcome) -> Episode:
    task = Task("opcd/House-v0", {}, 0, Split.TEST, "house/0", fingerprint, 3, 5)
    return Episode(task, (), outcome, Provenance("m", "w", 0, "0"))


@pytest.mark.parametrize(
    ("wins", "episodes", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # these four: Newcombe, Statistics in Medicine 17, 1998, table I
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (0, 10, 0.0, 0.277533),
        (10, 10, 0.722467, 1.0),
        (53, 128, 0.332452, 0.500681),
    ],
)
def test_wilson(wins, episodes, low, high):
    assert wilson(wins, episodes) == pytest.approx((low, high), abs=6e-5)


def test_nothing_played_is_known_to_be_anything():
    assert wilson(0, 0) == (0.0, 1.0)
    assert score([]).rate == 0.0


def test_episodes_are_counted_by_task():
    played = [("a", Outcome.WON), ("a", Outcome.LOST), ("b", Outcome.TRUNCATED), ("b", Outcome.WON), ("b", Outcome.WON)]
    counted = score(episode(*each) for each in played)
    assert (counted.wins, counted.episodes) == (3, 5)
    assert counted.by_task == {"a": (1, 2), "b": (2, 3)}
    assert counted.rate == pytest.approx(0.6)
    assert (counted.low, counted.high) == wilson(3, 5)


def test_failed_episodes_are_left_out():
    counted = score([episode("a", Outcome.WON), episode("a", Outcome.FAILED), episode("b", Outcome.FAILED)])
    assert (counted.wins, counted.episodes) == (1, 1)
    assert counted.by_task == {"a": (1, 1)}


def test_the_gap_and_its_interval():
    tasks = [f"t{i}" for i in range(40)]
    before = tally({t: (i % 4 == 0, 1) for i, t in enumerate(tasks)})  # 10 of 40
    teacher = tally({t: (i % 4 != 3, 1) for i, t in enumerate(tasks)})  # 30
    after = tally({t: (i % 4 == 0 or i % 8 == 2, 1) for i, t in enumerate(tasks)})  # 15
    closed = gap_closed(before, teacher, after)
    assert closed.value == pytest.approx(0.25)
    assert 0 < closed.low < 0.25 < closed.high < 0.6
    assert closed == gap_closed(before, teacher, after)
    assert closed != gap_closed(before, teacher, after, seed=1)


@pytest.mark.parametrize(("after", "value"), [(2, 0.0), (6, 1.0), (1, -0.25), (8, 1.5)])
def test_a_gap_can_be_missed_or_passed(after, value):
    closed = gap_closed(tally({"a": (2, 8)}), tally({"a": (6, 8)}), tally({"a": (after, 8)}))
    assert (closed.value, closed.low, closed.high) == pytest.approx((value, value, value))


@pytest.mark.parametrize("teacher", [2, 1])
def test_without_a_gap_there_is_nothing_to_close(teacher):
    closed = gap_closed(tally({"a": (2, 4)}), tally({"a": (teacher, 4)}), tally({"a": (3, 4)}))
    assert all(map(math.isnan, (closed.value, closed.low, closed.high)))


def test_tasks_that_not_all_played_are_left_out():
    before, teacher = {"a": (0, 4), "b": (0, 4), "c": (0, 4)}, {"a": (4, 4), "b": (4, 4), "d": (0, 4)}
    for hole in ({}, {"b": (0, 0)}):
        closed = gap_closed(tally(before), tally(teacher), tally({"a": (2, 4), "c": (4, 4), **hole}))
        assert (closed.value, closed.low, closed.high) == (0.5, 0.5, 0.5)


def test_no_task_in_common_is_no_gap():
    closed = gap_closed(tally({"a": (0, 4)}), tally({"b": (4, 4)}), tally({"a": (2, 4)}))
    assert all(map(math.isnan, (closed.value, closed.low, closed.high)))


def test_draws_are_paired_by_task():
    """Tasks differ a lot, but on each the student closes half of the gap: paired, there is no doubt left."""
    before = {f"t{i}": (i % 9, 10) for i in range(30)}
    teacher = {t: (wins + 2, 10) for t, (wins, _) in before.items()}
    after = {t: (wins + 1, 10) for t, (wins, _) in before.items()}
    closed = gap_closed(tally(before), tally(teacher), tally(after))
    assert (closed.value, closed.low, closed.high) == pytest.approx((0.5, 0.5, 0.5))
