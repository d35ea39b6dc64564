"""Scores stay in range for any counts."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from opcd_agents.scores import gap_closed, tally, wilson


@st.composite
def counts(draw, least=0, most=400):
    episodes = draw(st.integers(least, most))
    return draw(st.integers(0, episodes)), episodes


def results(tasks):
    return st.fixed_dictionaries({t: counts(least=1, most=8) for t in tasks}).map(tally)


triples = st.integers(1, 5).flatmap(lambda n: st.tuples(*[results([f"t{i}" for i in range(n)])] * 3))


@given(counts(most=10**6))
def test_wilson_holds_the_rate(count):
    wins, episodes = count
    low, high = wilson(wins, episodes)
    assert 0 <= low < high <= 1
    if episodes:
        assert low <= wins / episodes <= high


@given(counts(least=1))
def test_wilson_is_the_same_for_losses(count):
    wins, episodes = count
    low, high = wilson(wins, episodes)
    assert wilson(episodes - wins, episodes) == pytest.approx((1 - high, 1 - low))


@given(counts(least=1), st.integers(2, 50))
def test_more_of_the_same_is_more_certain(count, times):
    wins, episodes = count
    low, high = wilson(wins, episodes)
    lower, higher = wilson(times * wins, times * episodes)
    assert higher - lower < high - low


@given(triples)
def test_the_gap_closed_leads_from_before_to_after(scores):
    before, teacher, after = scores
    closed = gap_closed(*scores, draws=50)
    gap = teacher.rate - before.rate
    assert math.isnan(closed.value) == (gap <= 0)
    if gap > 0:
        assert before.rate + closed.value * gap == pytest.approx(after.rate)
        assert -before.rate / gap - 1e-9 <= closed.value <= (1 - before.rate) / gap + 1e-9
    assert math.isnan(closed.low) == math.isnan(closed.high)
    assert math.isnan(closed.low) or -math.inf < closed.low <= closed.high < math.inf


@given(triples)
def test_between_before_and_teacher_it_is_a_share(scores):
    before, after, teacher = sorted(scores, key=lambda score: score.rate)
    assume(before.rate < teacher.rate)
    assert 0 <= gap_closed(before, teacher, after, draws=10).value <= 1


@given(triples)
def test_the_teacher_closes_all_and_the_student_before_nothing(scores):
    before, _, teacher = sorted(scores, key=lambda score: score.rate)
    assume(before.rate < teacher.rate)
    for after, value in ((teacher, 1), (before, 0)):
        closed = gap_closed(before, teacher, after, draws=50)
        assert closed.value == pytest.approx(value)
        assert math.isnan(closed.low) or (closed.low, closed.high) == pytest.approx((value, value))
