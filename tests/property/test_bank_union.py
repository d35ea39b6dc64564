"""Merging banks is a union: in either order, however often, with the same digest; two contents never share an id unseen."""

import dataclasses
import json
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experience_bank import Bank, system_prompt
from experience_bank.lessons import Op, Status
from opcd_agents.types import Context, Episode, Lesson, Outcome, Provenance, Split, Task, Turn

WORDS = st.sampled_from(["open the box", "take the coin", "go south", "wait"])
ACTIONS = st.sampled_from(["episode", "lesson", "retire", "restore", "vote", "context", "bless", "forget"])


def episode(word, won=True):
    task = Task("e", {}, 0, Split.TRAIN, "s", word, None, 9)
    turn = Turn(f"you see {word}", word, word, 1.0, (1, 2), (3,), (-0.5,), None, (word, "look"))
    return Episode(task, (turn,), Outcome.WON if won else Outcome.LOST, Provenance("m", "w", 0, "v"))


def act(bank, what, word):
    """Do one thing to a bank, as far as what it holds allows."""
    episodes, lessons = bank.episode_ids(), [key for key, _ in bank.lessons(status=None)]
    if what == "episode":
        bank.add_episode(episode(word))
    elif what == "lesson":
        bank.add_lessons([Lesson("k", "s", word, {}, tuple((key, 0) for key in episodes[:2]))])
    elif what in ("retire", "restore") and lessons:
        bank.note(lessons[0], Op(what), word)
    elif what == "vote" and lessons:
        bank.vote([(lessons[-1], 1.0)], "human")
    elif what == "context":
        bank.add_context(Context(word, word, "experience", 0, "s"))
    elif what == "bless" and (contexts := bank.contexts()):
        bank.bless(contexts[0], word)
    elif what == "forget" and episodes:
        bank.forget(episodes[0], word)


DEEDS = st.lists(st.tuples(ACTIONS, WORDS), max_size=8)


@settings(deadline=None, max_examples=30)
@given(deeds=st.tuples(DEEDS, DEEDS, DEEDS))
def test_banks_merged_in_any_order_hold_the_same(tmp_path_factory, deeds):
    folder: Path = tmp_path_factory.mktemp("union")
    for number, things in enumerate(deeds):
        with Bank.open(folder / f"{number}.db") as bank:
            for what, word in things:
                act(bank, what, word)
    digests: set[str] = set()
    states: set[str] = set()
    for order in ((0, 1, 2), (2, 1, 0), (1, 1, 0, 2, 0)):
        with Bank.open(folder / f"all{''.join(map(str, order))}.db") as together:
            for number in order:
                with Bank.open(folder / f"{number}.db", "r") as part:
                    together.merge(part)
            assert together.verify() == []
            digests.add(together.digest())
            seen = [together.episode_ids(), together.statuses(), [c.id for c in together.contexts()], together.votes()]
            states.add(json.dumps(seen, default=str))
    assert len(digests) == 1
    assert len(states) == 1


def test_merging_adds_once(tmp_path):
    with Bank.open(tmp_path / "a.db") as a, Bank.open(tmp_path / "b.db") as b:
        keys = a.add_episodes([episode("wait"), episode("go south")])
        a.add_lessons([Lesson("k", "s", "wait", {}, ((keys[0], 0),))])
        first, again = b.merge(a), b.merge(a)
        assert (first["episodes"], first["turns"], first["lessons"], first["evidence"]) == (2, 2, 1, 1)
        assert not any(again.values())
        assert list(b.episodes()) == list(a.episodes())
        assert b.lessons() == a.lessons()


def test_another_content_under_the_same_id_is_quarantined_and_nothing_overwritten(tmp_path, monkeypatch):
    with Bank.open(tmp_path / "a.db") as a, Bank.open(tmp_path / "b.db") as b:
        key = a.add_episode(episode("wait"))
        b.merge(a)
        for bank, word in ((a, "wait"), (b, "go south")):
            with bank._store.writing():
                bank._store.do("DELETE FROM episodes", [()])
            monkeypatch.setattr(bank._ids, "new", lambda: key)
            assert bank.add_episode(episode(word)) == key
        mine, theirs = a.episode(key)[1], b.episode(key)[1]
        a.merge(b)
        a.merge(b)
        b.merge(a)
        assert (a.episode(key)[1], b.episode(key)[1]) == (mine, theirs)
        assert [(q["kind"], q["name"]) for q in a.quarantined()] == [("episodes", key)]
        assert {q["reason"] for q in b.quarantined()} == {"another episode stands under this id"}
        assert a.digest() == b.digest()


def test_what_does_not_match_its_digest_is_not_taken_over(tmp_path):
    with Bank.open(tmp_path / "a.db") as a, Bank.open(tmp_path / "b.db") as b:
        good, bad = a.add_episodes([episode("wait"), episode("go south")])
        with a._store.writing():
            a._store.do("UPDATE turns SET action = 'x' WHERE episode_id = ?", [(bad,)])
        b.merge(a)
        assert b.episode_ids() == [good]
        assert b.quarantined()[0]["reason"] == "does not match its digest"
        assert b.verify() == []


@pytest.mark.parametrize("change", [{"admissible": ()}, {"reward": 2.0}, {"prompt_ids": (1,)}, {"sampled_ids": (2, 3)}])
def test_the_digest_covers_every_part_of_a_turn(tmp_path, change):
    first = episode("wait")
    second = dataclasses.replace(first, turns=(dataclasses.replace(first.turns[0], **change),))
    with Bank.open(tmp_path / "a.db") as bank:
        bank.add_episodes([first, second])
        assert bank._store.value("SELECT count(DISTINCT digest) FROM episodes") == 2


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_what_was_forgotten_somewhere_is_retired_everywhere(tmp_path, order):
    """One bank learnt a lesson from two episodes, two others forgot one each (one of them twice over), and one knows it anyhow."""
    said = Lesson("k", "s", "wait", {}, ())
    with Bank.open(tmp_path / "0.db") as first:
        one, two = first.add_episodes([episode("wait"), episode("go south")])
        for number, gone in ((1, [one]), (2, [one, two]), (3, [])):
            with Bank.open(tmp_path / f"{number}.db") as other:
                other.merge(first)
                for key in gone:
                    other.forget(key, "private")
                other.add_lessons([said] if number == 3 else [])
        first.add_lessons([dataclasses.replace(said, evidence=((one, 0), (two, 0)))])
    with Bank.open(tmp_path / "all.db") as together:
        for number in (*order, order[0]):
            with Bank.open(tmp_path / f"{number}.db", "r") as part:
                together.merge(part)
        [(key, status)] = together.statuses().items()
        log = [(entry.op, entry.id.split("-")[0], entry.other) for entry in together.log(key)]
        assert (status, len([op for op, *_ in log if op is Op.BURY])) == (Status.RETIRED, 3)
        with Bank.open(tmp_path / "back.db") as back:
            for number in (3, 2, 1, 0):
                with Bank.open(tmp_path / f"{number}.db", "r") as part:
                    back.merge(part)
            assert back.digest() == together.digest()


def test_damaged_lessons_and_contexts_are_not_taken_over(tmp_path):
    with Bank.open(tmp_path / "a.db") as a, Bank.open(tmp_path / "b.db") as b:
        good, bad = a.add_lessons([Lesson("k", "s", word, {}, ()) for word in ("wait", "never open it")])
        a.vote([(bad, 1.0)], "human")
        made = a.add_context(system_prompt("Be brief.", "s", len))
        a.bless(made, "good")
        with a._store.writing():
            a._store.do("UPDATE lessons SET statement = 'always open it' WHERE id = ?", [(bad,)])
            a._store.do("UPDATE contexts SET text = 'Be rude.'", [()])
        assert a.verify() == [bad, made.id]
        assert b.merge(a)["quarantine"] == 2
        assert ([key for key, _ in b.lessons(status=None)], b.contexts(), b.votes(), b.verify()) == ([good], [], {}, [])
        assert {(row["kind"], row["reason"]) for row in b.quarantined()} == {
            ("lessons", "does not match its id"),
            ("contexts", "does not match its id"),
        }
        assert not any(b.merge(a).values())
