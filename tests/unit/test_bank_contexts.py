"""Contexts: notes in the form the pocket models read, within a budget, or a text that somebody wrote."""

import hashlib

import numpy as np
import pytest

from experience_bank import Bank, consolidate, extract, system_prompt
from opcd_agents.errors import UsageError
from opcd_agents.pocket.expert import notes_of
from opcd_agents.pocket.houses import sample_house
from opcd_agents.types import Episode, Lesson, Outcome, Provenance, Split, Task, Turn


def words(text):
    return len(text.split())


def place(name, where, *episodes):
    facts = {"name": name, "place": where}
    evidence = tuple((episode, 0) for episode in episodes or ("e1",))
    return Lesson("place", "house/7", f"{name} in {where}.", facts, evidence)


def way(room, to, *episodes):
    facts = {"room": room, "direction": "south", "to": to, "door": ""}
    evidence = tuple((episode, 0) for episode in episodes or ("e1",))
    return Lesson("exit", "house/7", f"{room}: {to} south.", facts, evidence)


def named(*lessons):
    return [(lesson.statement, lesson) for lesson in lessons]


HOUSE = named(
    place("coin", "crate"), place("crate", "Cellar"), place("map", "Hall", "e1", "e2"),
    way("Hall", "Cellar"), way("Kitchen", "Hall"),
)  # fmt: skip


def test_notes_read_as_the_pocket_models_learnt_them():
    context = consolidate(HOUSE, words, 100)
    assert context.text == ("Notes: coin crate. crate Cellar. map Hall. Hall top. Cellar Hall. Kitchen Hall.")
    assert context.id == hashlib.sha256((context.text + "notes/1").encode()).hexdigest()[:16]
    assert (context.source, context.version, context.scope) == ("experience", 0, "house/7")
    assert context.tokens == words(context.text)
    assert set(context.lessons) == {key for key, _ in HOUSE}
    assert len(set(context.lessons)) == len(context.lessons)


def test_the_order_of_lessons_does_not_matter():
    assert consolidate(HOUSE[::-1], words, 100) == consolidate(HOUSE, words, 100)


def test_an_exit_seen_from_one_side_joins_both():
    one = consolidate(named(way("Hall", "Cellar")), words, 100)
    assert one.text == "Notes: Cellar top. Hall Cellar."
    both = consolidate(named(way("Hall", "Cellar"), way("Cellar", "Hall")), words, 100)
    assert both.text == one.text
    assert len(both.lessons) == 2


def test_the_place_that_more_episodes_show_wins():
    lessons = named(place("coin", "safe", "e1", "e2"), place("coin", "bin", "e3"))
    context = consolidate(lessons, words, 100)
    assert (context.text, context.lessons) == ("Notes: coin safe.", ("coin in safe.",))


def test_among_equals_the_later_sight_wins():
    lessons = named(place("coin", "safe", "e1"), place("coin", "bin", "e2"))
    assert consolidate(lessons, words, 100).text == "Notes: coin bin."


def test_many_turns_of_one_episode_are_one_witness():
    often = Lesson("place", "house/7", "coin in bin.", {"name": "coin", "place": "bin"}, (("e1", 0), ("e1", 1)))
    lessons = [("often", often), *named(place("coin", "safe", "e2", "e3"))]
    assert consolidate(lessons, words, 100).text == "Notes: coin safe."


@pytest.mark.parametrize(
    ("budget", "text"),
    [
        (3, "Notes: Hall top."),
        (5, "Notes: map Hall. Hall top."),
        (7, "Notes: map Hall. Hall top. Cellar Hall."),
        (9, "Notes: crate Cellar. map Hall. Hall top. Cellar Hall."),
        (11, "Notes: coin crate. crate Cellar. map Hall. Hall top. Cellar Hall."),
    ],
)
def test_a_short_budget_keeps_facts_with_their_whole_chain(budget, text):
    assert consolidate(HOUSE, words, budget).text == text


def test_facts_that_lead_in_a_circle_are_harmless():
    lessons = named(place("box", "crate"), place("crate", "box"))
    assert consolidate(lessons, words, 100).text == "Notes: box crate. crate box."
    with pytest.raises(UsageError, match="a budget of 4 tokens holds not one sentence"):
        consolidate(lessons, words, 4)


def test_what_makes_no_context_is_refused():
    with pytest.raises(UsageError, match="wanted lessons"):
        consolidate([], words, 100)
    with pytest.raises(UsageError, match="wanted lessons of one scope, got a, house/7"):
        consolidate([*HOUSE, ("x", Lesson("place", "a", "", {}, ()))], words, 100)
    with pytest.raises(UsageError, match="tells a place or an exit"):
        consolidate([("x", Lesson("workflow", "house/7", "To win: win.", {}, ()))], words, 100)
    for budget in (2, 0, -1):
        with pytest.raises(UsageError, match="holds not one sentence; raise it"):
            consolidate(HOUSE, words, budget)


def test_a_system_prompt_is_kept_as_it_is():
    context = system_prompt("  Be brief.\n", "house/7", words)
    assert (context.text, context.source, context.tokens) == ("  Be brief.\n", "system_prompt", 2)
    assert context.lessons == ()
    assert len(context.id) == 16
    with pytest.raises(UsageError, match="empty text"):
        system_prompt(" \n", "house/7", words)


def test_from_play_to_stored_notes(tmp_path):
    """A player who looks into everything learns the whole house, and the notes say it as the expert's do."""
    plan = sample_house(np.random.default_rng(1), held_out=False, rooms=7)
    task = Task("opcd/House-v0", {}, 0, Split.TRAIN, "house/7", "f", None, 99)
    with Bank.open(tmp_path / "bank.db") as bank:
        for room in plan.rooms:
            state = plan.start(room)
            turns = [Turn(f"Find the key and take it.\n{state.describe()}", "", "")]
            for shut in state.visible_containers():
                if shut not in state.open:
                    state, news = state.apply(f"open {shut}")
                    turns.append(Turn(f"{news}\n{state.describe()}", "", f"open {shut}"))
            bank.add_episode(Episode(task, tuple(turns), Outcome.LOST, Provenance("", "", 0, "")))
        bank.add_lessons(extract(bank.episodes(split=Split.TRAIN)))
        notes = bank.add_context(consolidate(bank.lessons("house/7"), words, 500))
        said = notes.text.removeprefix("Notes: ").removesuffix(".").split(". ")
        assert sorted(f"{s}." for s in said) == sorted(notes_of(plan).sentences())
        assert bank.context("house/7") == notes
        assert notes.version == 1
        assert {bank.lesson(key)[0] for key in notes.lessons} == set(notes.lessons)
