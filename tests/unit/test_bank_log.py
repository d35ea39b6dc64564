"""What becomes of lessons and contexts is said in logs; nothing is changed, nothing is lost."""

import pytest

from experience_bank import Bank
from experience_bank.contexts import Validation
from experience_bank.lessons import Op, Status
from experience_bank.retrieve import WordIndex
from opcd_agents.errors import BankError, UnknownNameError
from opcd_agents.types import Context, Episode, Lesson, Outcome, Provenance, Split, Task


def lesson(statement, scope="house/7"):
    return Lesson("strategy", scope, statement, {}, ())


def context(key, scope="house/7"):
    return Context(key, f"Notes: {key}.", "experience", 0, scope)


@pytest.fixture
def bank(tmp_path):
    with Bank.open(tmp_path / "bank.db") as opened:
        yield opened


def said(bank, key):
    return [(entry.op, entry.other, entry.actor, entry.reason) for entry in bank.log(key)]


def test_a_lesson_is_added_once_whoever_learns_it_again(bank):
    [key] = bank.add_lessons([lesson("open the box")], "mine", reason="seen")
    bank.add_lessons([lesson("open the box")], "another")
    assert said(bank, key) == [(Op.ADD, None, "mine", "seen")]


def test_retired_and_restored_is_active_again(bank):
    [key] = bank.add_lessons([lesson("open the box")])
    bank.note(key, Op.RETIRE, "it was wrong")
    assert bank.lessons() == []
    assert bank.lesson(key)[1] == lesson("open the box")
    assert bank.lessons(status=Status.RETIRED) == [(key, lesson("open the box"))]
    bank.note(key[:5], Op.RESTORE, "it was right")
    assert [k for k, _ in bank.lessons()] == [key]
    assert [op for op, *_ in said(bank, key)] == [Op.ADD, Op.RETIRE, Op.RESTORE]


def test_learning_again_what_was_retired_does_not_revive_it(bank):
    [key] = bank.add_lessons([lesson("open the box")])
    bank.note(key, Op.RETIRE, "it was wrong")
    bank.add_lessons([lesson("open the box")])
    assert bank.statuses() == {key: Status.RETIRED}


def test_what_is_reworded_keeps_its_parents(bank):
    one, two, better = bank.add_lessons([lesson("open box"), lesson("open a box"), lesson("open the box")])
    for parent in (one, two):
        bank.note(parent, Op.REPLACE, "the same", other=better)
    assert [key for key, _ in bank.lessons()] == [better]
    assert said(bank, one)[-1] == (Op.REPLACE, better, "person", "the same")


def test_imported_lessons_wait(bank):
    [key] = bank.add_lessons([lesson("send money")], "import", quarantined=True)
    assert bank.lessons() == []
    bank.note(key, Op.RELEASE, "it helps")
    assert [k for k, _ in bank.lessons()] == [key]


def test_two_that_stay_apart_are_remembered_in_either_order(bank):
    one, two = bank.add_lessons([lesson("open it"), lesson("close it")])
    bank.note(two, Op.APART, "opposites", other=one)
    assert bank.apart() == {frozenset((one, two))}
    assert len(bank.lessons()) == 2


@pytest.mark.parametrize(
    ("op", "other"),
    [(Op.ADD, None), (Op.BURY, None), (Op.BURY, "x"), (Op.REPLACE, None), (Op.APART, None), (Op.RETIRE, "x")],
)
def test_a_log_line_that_makes_no_sense_is_refused(bank, op, other):
    [key] = bank.add_lessons([lesson("open it")])
    with pytest.raises(BankError, match="cannot note"):
        bank.note(key, op, "?", other=other)
    with pytest.raises(UnknownNameError):
        bank.note("zz", Op.RETIRE, "?")


def test_votes_are_rows(bank):
    one, two = bank.add_lessons([lesson("open it"), lesson("close it")])
    bank.vote([(one, 1.0), (two, -0.5)], "outcome", "c1")
    bank.vote([(one, 2)], "human")
    assert bank.votes() == {one: (1.0, 2.0), two: (-0.5,)}


def test_the_blessed_context_stands_for_its_scope_until_another_is(bank):
    old, new = bank.add_context(context("c1")), bank.add_context(context("c2"))
    assert bank.context("house/7") == new
    bank.bless(old, "it closed more of the gap")
    assert bank.context("house/7") == bank.blessed("house/7") == old
    assert bank.context("latest") == new
    bank.bless(new, "now this one")
    assert bank.context("house/7") == new
    assert bank.blessed("house/8") is None


def test_a_context_keeps_what_it_was_made_with(bank):
    made = Context("c1", "Notes.", "experience", 0, "s", ("l1", "l2"), 3, "notes/1", "pocket", 512)
    stored = bank.add_context(made)
    assert (stored.renderer, stored.tokenizer, stored.budget, stored.lessons) == (
        "notes/1",
        "pocket",
        512,
        ("l1", "l2"),
    )


def test_validations_come_back_by_scope(bank):
    bank.add_context(context("c1"))
    found = Validation("c1", "house/7", "pocket", "w", Split.VALIDATION, 3, {"f": (1, 2, 0, 2)})
    stored = bank.add_validation(found)
    assert bank.validations("house/7") == [stored]
    assert bank.validations("house/8") == []
    assert stored.by_task == {"f": (1, 2, 0, 2)}


def test_a_forgotten_episode_and_what_it_showed_are_gone_for_good(bank, tmp_path):
    task = Task("e", {}, 0, Split.TRAIN, "s", "f", None, 9)
    episode = Episode(task, (), Outcome.LOST, Provenance("m", "w", 0, "v"))
    gone, kept = bank.add_episodes([episode, episode])
    [key] = bank.add_lessons([Lesson("k", "s", "said", {}, ((gone, 0), (kept, 0)))])
    with Bank.open(tmp_path / "copy.db") as copy:
        copy.merge(bank)
        assert bank.forget(gone[:26], "it holds a name") == gone
        assert bank.lesson(key)[1].evidence == ((kept, 0),)
        bank.merge(copy)  # would bring it back
        assert [k for k, _ in bank.episodes()] == [kept]
        copy.merge(bank)
        assert [k for k, _ in copy.episodes()] == [kept]
        assert copy.digest() == bank.digest()


def test_a_lesson_that_only_a_forgotten_episode_showed_is_retired(bank, tmp_path):
    task = Task("e", {}, 0, Split.TRAIN, "s", "f", None, 9)
    episode = Episode(task, (), Outcome.LOST, Provenance("m", "w", 0, "v"))
    gone, kept = bank.add_episodes([episode, episode])
    evidence = {"alone": ((gone, 0),), "both": ((gone, 0), (kept, 0)), "told": ()}
    alone, both, told = bank.add_lessons([Lesson("k", "s", said, {}, shown) for said, shown in evidence.items()])
    index = WordIndex(bank.lessons(), bank.fingerprints())
    assert "alone" not in str(index.search("alone", "f"))
    index.close()
    bank.forget(gone, "private")
    assert bank.statuses() == {alone: Status.RETIRED, both: Status.ACTIVE, told: Status.ACTIVE}
    assert said(bank, alone)[-1] == (Op.BURY, gone, "forget", "an episode that showed it was forgotten")
    bank.note(alone, Op.RESTORE, "I know it")
    assert bank.statuses()[alone] is Status.ACTIVE
    bank.forget(kept, "private too")
    assert bank.statuses() == {alone: Status.ACTIVE, both: Status.RETIRED, told: Status.ACTIVE}
    again = bank.add_episode(episode)
    bank.add_lessons([Lesson("k", "s", "both", {}, ((again, 0),))])
    assert bank.statuses()[both] is Status.ACTIVE  # another episode shows it


def test_what_is_in_quarantine_of_a_forgotten_episode_goes_too(bank, tmp_path):
    task = Task("e", {}, 0, Split.TRAIN, "s", "f", None, 9)
    key = bank.add_episode(Episode(task, (), Outcome.LOST, Provenance("m", "w", 0, "v")))
    with Bank.open(tmp_path / "other.db") as other:
        other.merge(bank)
        with other._store.writing():
            other._store.do("UPDATE episodes SET final = 'secret'", [()])
        with Bank.open(tmp_path / "third.db") as third:
            third.merge(other)
            assert [row["name"] for row in third.quarantined()] == [key]
            bank.forget(key, "holds a name")
            third.merge(bank)
            assert third.quarantined() == []
            bank.merge(third)
            third.merge(other)
            assert (third.quarantined(), bank.digest()) == ([], third.digest())


def test_what_holds_for_a_scope_is_its_own_its_familys_and_global(bank):
    scopes = ("textworld/a", "textworld", "global", "textworld/b", "house")
    bank.add_lessons([lesson(f"on {scope}", scope) for scope in scopes])
    assert [one.scope for _, one in bank.lessons_for("textworld/a")] == ["textworld/a", "textworld", "global"]
    assert [one.scope for _, one in bank.lessons_for("math")] == ["global"]
