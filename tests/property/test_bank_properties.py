"""What holds for every episode, text and budget."""

import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experience_bank import Bank, consolidate, extract
from opcd_agents.errors import UsageError
from opcd_agents.types import Episode, Lesson, Outcome, Provenance, Split, Task, Turn

TEXT = st.text(st.characters(codec=None), max_size=20)
INT64 = st.integers(-(2**63), 2**63 - 1)
IDS = st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4).map(tuple)
JSON = st.recursive(
    st.none() | st.booleans() | INT64 | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
TASKS = st.builds(
    Task,
    env_id=TEXT,
    kwargs=st.dictionaries(TEXT, JSON, max_size=3),
    seed=INT64,
    split=st.sampled_from(Split),
    scope=TEXT,
    fingerprint=TEXT,
    optimal=st.none() | INT64,
    limit=INT64,
)
TURNS = st.builds(
    Turn,
    observation=TEXT,
    reply=TEXT,
    action=TEXT,
    reward=st.floats(allow_nan=False),
    prompt_ids=IDS,
    sampled_ids=IDS,
    logprobs=st.lists(st.floats(allow_nan=False, width=32), max_size=4).map(tuple),
    invalid=st.none() | TEXT,
)
EPISODES = st.builds(
    Episode,
    task=TASKS,
    turns=st.lists(TURNS, max_size=3).map(tuple),
    outcome=st.sampled_from(Outcome),
    provenance=st.builds(Provenance, TEXT, TEXT, INT64, TEXT, st.none() | TEXT),
    final=TEXT,
    error=st.none() | TEXT,
)

# Text that is nearly what a house prints, so that extraction is led deep before it meets junk.
PIECES = st.sampled_from(
    [
        "-= ", " =-", "Hall", "Attic", "coin", "open crate", "crate", "\n", ". ", ", ", " and ", " with ", "a ",
        "Exits: ", " south", " by closed gate", "There is a ", "There is an open ", " on the floor", "You carry ",
        "You open the ", ", revealing ", "You take the ", " from the ", "You pick up the ", " from the ground",
        "You put the ", " into the ", "You drop the ", " on the ground", "-= Hall =-\n", "\u2028", "Find the coin.",
        "Notes: ", "unreadable",
    ]
)  # fmt: skip
HOUSE_TEXT = st.lists(PIECES | TEXT, max_size=12).map("".join)
SCOPES = st.sampled_from(["house/1", "operator/#34", ""])

NAMES = st.sampled_from(["coin", "map", "crate", "box", "Hall", "Attic", "Cellar", "Shed"])
EVIDENCE = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), max_size=4).map(tuple)
PLACES = st.builds(
    lambda name, place, seen: Lesson(
        "place", "s", f"{name} in {place}.", {"name": name, "place": place}, seen
    ),
    NAMES, NAMES, EVIDENCE,
)  # fmt: skip
EXITS = st.builds(
    lambda room, to, seen: Lesson(
        "exit", "s", f"{room}: {to} south.", {"room": room, "to": to, "door": ""}, seen
    ),
    NAMES, NAMES, EVIDENCE,
)  # fmt: skip


def count_words(text: str) -> int:
    return len(text.split())


def count_oddly(text: str) -> int:
    """No tokenizer is like this: a longer text may count less."""
    return zlib.crc32(text.encode()) % 97


COUNTERS = st.sampled_from([len, count_words, count_oddly])


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    with Bank.open(tmp_path_factory.mktemp("bank") / "bank.db") as opened:
        yield opened


@settings(deadline=None, max_examples=100)
@given(episode=EPISODES, role=TEXT)
def test_any_episode_comes_back_as_it_was(bank, episode, role):
    key = bank.add_episode(episode, role)
    assert bank.episode(key) == (key, episode)
    assert (key, episode) in bank.episodes(episode.task.scope, episode.task.split, role)


def test_all_of_them_still_match_their_digests(bank):
    assert bank.verify() == []


@settings(deadline=None, max_examples=200)
@given(
    texts=st.lists(HOUSE_TEXT, min_size=1, max_size=4),
    action=TEXT,
    scope=SCOPES,
    outcome=st.sampled_from(Outcome),
)
def test_extraction_never_raises_and_never_forges(texts, action, scope, outcome):
    task = Task("e", {}, 0, Split.TRAIN, scope, "f", None, 9)
    turns = tuple(Turn(text, "", action) for text in texts[:-1])
    episode = Episode(task, turns, outcome, Provenance("", "", 0, ""), texts[-1])
    for lesson in extract([("e", episode)]):
        assert lesson.scope == scope
        assert lesson.evidence
        assert all(0 <= turn < max(len(turns), 1) for _, turn in lesson.evidence)
        if lesson.kind == "place":
            assert lesson.statement.count(" in ") == 1
            assert lesson.statement.count(".") == 1
            assert " near " not in lesson.statement


@settings(deadline=None, max_examples=200)
@given(lessons=st.lists(PLACES | EXITS, max_size=12), count=COUNTERS, budget=st.integers(-1, 150))
def test_a_context_never_exceeds_its_budget_nor_cuts_a_sentence(lessons, count, budget):
    known = [(str(i), lesson) for i, lesson in enumerate(lessons)]
    try:
        context = consolidate(known, count, budget)
    except UsageError:
        return
    assert context.tokens == count(context.text) <= budget
    assert context.text.startswith("Notes: ")
    whole = consolidate(known, lambda _: 0, 0).text
    sentences = context.text.removeprefix("Notes: ").removesuffix(".").split(". ")
    assert set(sentences) <= set(whole.removeprefix("Notes: ").removesuffix(".").split(". "))
    assert set(context.lessons) <= {key for key, _ in known}


@settings(deadline=None, max_examples=50)
@given(lessons=st.lists(PLACES | EXITS, max_size=6))
def test_adding_lessons_twice_changes_nothing(tmp_path_factory, lessons):
    task = Task("e", {}, 0, Split.TRAIN, "s", "f", None, 9)
    episode = Episode(task, (), Outcome.LOST, Provenance("", "", 0, ""))
    with Bank.open(tmp_path_factory.mktemp("twice") / "bank.db") as bank:
        keys = dict(zip("abc", bank.add_episodes([episode] * 3), strict=True))
        cited = [
            Lesson(x.kind, x.scope, x.statement, x.facts, tuple((keys[e], t) for e, t in x.evidence)) for x in lessons
        ]
        added = bank.add_lessons(cited)
        once = bank.lessons()
        assert bank.add_lessons(reversed(cited)) == added[::-1]
        assert bank.lessons() == once
        assert {key for key, _ in once} == set(added)
