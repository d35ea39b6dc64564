"""Whatever a bank holds comes back from a file as it was, and no text that is imported leaves its line."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experience_bank import Bank
from experience_bank.exchange import export, load
from experience_bank.exchange.others import clean
from experience_bank.lessons import Op
from opcd_agents.types import Context, Episode, Lesson, Outcome, Provenance, Split, Task, Turn

TEXT = st.text(st.characters(codec=None), max_size=12)
INT64 = st.integers(-(2**63), 2**63 - 1)
IDS = st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4).map(tuple)
JSON = st.recursive(
    st.none() | st.booleans() | INT64 | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=4,
)
TASKS = st.builds(
    Task, TEXT, st.dictionaries(TEXT, JSON, max_size=2), INT64, st.sampled_from(Split), TEXT, TEXT, st.none() | INT64, INT64
)  # fmt: skip
TURNS = st.builds(
    Turn, TEXT, TEXT, TEXT, st.floats(allow_nan=False), IDS, IDS,
    st.lists(st.floats(allow_nan=False, width=32), max_size=4).map(tuple), st.none() | TEXT,
    st.lists(TEXT, max_size=2).map(tuple),
)  # fmt: skip
PLAYERS = st.builds(Provenance, TEXT, TEXT, INT64, TEXT, st.none() | TEXT)
EPISODES = st.builds(
    Episode, TASKS, st.lists(TURNS, max_size=3).map(tuple), st.sampled_from(Outcome), PLAYERS, TEXT, st.none() | TEXT
)
LESSONS = st.builds(Lesson, TEXT, TEXT, TEXT, st.dictionaries(TEXT, TEXT, max_size=2), st.just(()))
NAMES = st.text("abc1", min_size=1, max_size=4)
CONTEXTS = st.builds(Context, NAMES, TEXT, TEXT, st.just(0), TEXT, st.lists(TEXT, max_size=2).map(tuple), INT64)


@pytest.mark.parametrize("format", ["jsonl", "atif", "chat"])
@settings(deadline=None, max_examples=25)
@given(
    episodes=st.lists(st.tuples(EPISODES, TEXT), min_size=1, max_size=3),
    lessons=st.lists(LESSONS, max_size=3),
    contexts=st.lists(CONTEXTS, max_size=2, unique_by=lambda context: context.id),
)
def test_any_bank_comes_back_as_it_was(format, episodes, lessons, contexts):
    with tempfile.TemporaryDirectory() as name, Bank.open(Path(name) / "a.db") as bank:
        for episode, role in episodes:
            bank.add_episode(episode, role)
        for key in bank.add_lessons(lessons):
            bank.note(key, Op.RETIRE, "no")
            bank.vote([(key, float("inf"))], "human")
        for context in contexts:
            bank.add_context(context)
        out = Path(name) / "out"
        export(bank, out, format)
        with Bank.open(Path(name) / "b.db") as other:
            load(other, out, trusted=True)
            digest = other.digest()
            assert load(other, out, trusted=True).counts == {}
            assert load(other, out).counts == {}
            assert other.digest() == digest
            assert other.counts()["episodes"] == len(episodes)
            assert other.verify() == []
            if format == "jsonl":
                assert digest == bank.digest()
            if format != "chat":
                assert list(other.episodes()) == list(bank.episodes())
        with Bank.open(Path(name) / "c.db") as stranger:
            load(stranger, out)
            assert list(map(str, stranger.statuses().values())) == ["quarantined"] * stranger.counts()["lessons"]
            assert (stranger.counts()["episodes"], stranger.contexts(), stranger.verify()) == (len(episodes), [], [])
            digest = stranger.digest()
            assert load(stranger, out).counts == {}
            assert stranger.digest() == digest


@settings(deadline=None, max_examples=300)
@given(st.text(st.characters(codec=None), max_size=200))
def test_a_cleaned_text_is_one_printable_line(text):
    cleaned = clean(text)
    assert cleaned == clean(cleaned)
    assert len(cleaned.splitlines()) <= 1
    cleaned.encode()  # no lone surrogate is left
    assert "\x1b" not in cleaned
