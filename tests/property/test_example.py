"""Rows share every sampled id, or there is no Example."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opcd_agents.errors import AlignmentError
from opcd_agents.types import Example, Tokens, Turn

ids = st.lists(st.integers(0, 50), min_size=1, max_size=6).map(tuple)
turns = st.lists(
    st.builds(lambda p, s: Turn("o", "r", "a", 0.0, p, s, (0.0,) * len(s)), ids, ids), min_size=1, max_size=5
)


@given(turns, ids, ids)
def test_rows_of_one_episode_share_what_was_sampled(played, opening, context):
    example = Example(Tokens.of(played, opening), Tokens.of(played, context + opening))
    said = tuple(i for turn in played for i in turn.sampled_ids)
    assert example.student.said == example.teacher.said == said
    assert len(example.teacher.ids) == len(example.student.ids) + len(context)


@given(turns, st.data())
def test_any_other_sampled_id_is_refused(played, data):
    row = Tokens.of(played)
    where = data.draw(st.sampled_from([i for i, s in enumerate(row.sampled) if s]))
    other = list(row.ids)
    other[where] += 1
    with pytest.raises(AlignmentError, match="part at sampled position"):
        Example(row, Tokens(tuple(other), row.sampled))


@given(turns)
def test_a_missing_or_extra_sampled_id_is_refused(played):
    row = Tokens.of(played)
    with pytest.raises(AlignmentError):
        Example(row, Tokens((*row.ids, 1), (*row.sampled, True)))
    with pytest.raises(AlignmentError):
        Example(row, Tokens(row.ids[:-1], row.sampled[:-1]))


def test_nothing_sampled_or_nothing_in_front_is_refused():
    with pytest.raises(AlignmentError, match="got none"):
        Example(Tokens((1,), (False,)), Tokens((1,), (False,)))
    with pytest.raises(AlignmentError, match="in front"):
        Example(Tokens((1,), (True,)), Tokens((1,), (True,)))
    with pytest.raises(AlignmentError, match="one flag an id"):
        Tokens((1, 2), (True,))
