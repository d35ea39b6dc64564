"""Chains, operations and critiques, and what they come to in a bank."""

import re
from dataclasses import replace

import pytest

from experience_bank import Bank
from experience_bank.codec import lesson_id
from experience_bank.lessons import Op, Status
from experience_bank.writing import (
    Add,
    Agree,
    Edit,
    Remove,
    Writer,
    apply,
    candidates,
    comparisons,
    rollout_groups,
    write_chains,
    write_critiques,
    write_items,
    write_operations,
)  # fmt: skip
from opcd_agents.errors import BankError, ModelError, UsageError
from opcd_agents.policies.scripted import HumanPolicy, ScriptedPolicy
from opcd_agents.types import Episode, Lesson, Outcome, Provenance, Reply, Split, Task, Turn

WON, LOST, OUT, FAILED = Outcome.WON, Outcome.LOST, Outcome.TRUNCATED, Outcome.FAILED


def words(text):
    return len(text.split())


def episode(outcome=LOST, fingerprint="f", scope="house/7", split=Split.TRAIN, turns=3):
    task = Task("opcd/House-v0", {}, 0, split, scope, fingerprint, 4, 9)
    said = tuple(Turn(f"Room {i}.", f"> go {i}", f"go {i}") for i in range(turns))
    return Episode(task, said, outcome, Provenance("m", "w", 0, "v"), "Over.")


def scripted(*lines):
    return Writer(ScriptedPolicy(["\n".join(lines)]), words)


def answering(*replies):
    """A writer that gives one reply after the other, and the list of what it read."""
    read = []
    left = iter(replies)
    return Writer(HumanPolicy(lambda text: read.append(text) or next(left)), words), read


class Seeded:
    """Says the seed it was begun with."""

    name, weights = "seeded", ""

    def begin(self, context, seeds):
        self._seeds = seeds
        return self

    def reply(self, heard):
        return {s: Reply(f"- EXPERIENCE ITEM: Rule {self._seeds[s]}. [turns 0]") for s in heard}


@pytest.fixture
def bank(tmp_path):
    with Bank.open(tmp_path / "bank.db") as opened:
        yield opened


@pytest.fixture
def pair(bank):
    """A won and a lost episode of one task, in the bank."""
    return [bank.episode(key) for key in bank.add_episodes([episode(WON), episode(LOST)])]


def rule(bank, said, cited, scope="house/7"):
    [key] = bank.add_lessons([Lesson("strategy", scope, said, {}, tuple(cited))])
    return key


# -- items --


def test_items_are_lessons_on_the_scope_with_the_turns_that_show_them(bank, pair):
    writer = scripted("- EXPERIENCE ITEM: Look first. [turns 0, 2]", "- EXPERIENCE ITEM: Wait. [turn 1]")
    batches = list(write_items(writer, pair))
    lessons = [Lesson("strategy", "house/7", "Look first.", {}, tuple((key, t) for t in (0, 2))) for key, _ in pair]
    assert [batch.deltas[0] for batch in batches] == [Add(lesson, "experience", "scripted") for lesson in lessons]
    done = apply(bank, [delta for batch in batches for delta in batch.deltas])
    assert done.left_out == ()
    assert bank.counts()["lessons"] == len(done.lessons) == 2
    for key in done.lessons:
        entry = bank.log(key)[0]
        assert (entry.op, entry.actor, entry.reason) == (Op.ADD, "write:experience", "written by scripted")
    assert bank.lesson(done.lessons[0])[1].evidence == tuple((key, t) for key, _ in pair for t in (0, 2))
    assert bank.votes() == {}


def test_one_failed_batch_spoils_no_other(pair):
    writer, _ = answering("- EXPERIENCE ITEM: Look first. [turns 0]", "I would rather not.")
    good, bad = write_items(writer, pair)
    assert good.failed is None
    assert good.deltas
    assert (bad.deltas, bad.raw) == ((), "I would rather not.")


def test_batches_come_out_before_the_policy_gives_up():
    def ask(text):
        if len(asked) == 16:
            raise ModelError("gone")
        asked.append(text)
        return "NOTHING NEW"

    asked = []
    found = write_items(Writer(HumanPolicy(ask), words), [(f"e{i}", episode()) for i in range(20)])
    assert [next(found).failed for _ in range(16)] == [None] * 16
    with pytest.raises(ModelError):
        next(found)


def test_the_same_seed_writes_the_same_and_streams_differ(pair):
    def seeds(seed):
        return [batch.seed for batch in write_items(Writer(Seeded(), words), pair * 20, seed=seed)]

    assert seeds(3) == seeds(3)
    assert len({*seeds(3), *seeds(4)}) == 80


# -- chains --


def test_ten_chains_of_thirty_steps_are_three_hundred_candidates():
    episodes = [(f"e{i}", episode(fingerprint=str(i))) for i in range(31)]
    seeds = range(50, 550, 50)
    batches = write_chains(Writer(Seeded(), words), episodes, seeds=seeds, steps=30, previous=False)
    found = sorted(candidates(batches, seeds), key=lambda candidate: (candidate.seed, candidate.step))
    assert len(found) == 300
    assert len({tuple(lesson.statement for lesson in c.lessons) for c in found}) == 300
    assert [(c.seed, c.step, len(c.lessons)) for c in found] == [(s, n, n) for s in seeds for n in range(1, 31)]
    last = found[29].lessons
    assert [lesson.evidence for lesson in last] == [((f"e{i}", 0),) for i in range(30)]
    assert last[:12] == found[11].lessons


@pytest.mark.parametrize("previous", [True, False])
def test_a_chain_shows_what_itself_wrote_and_nothing_of_the_others(previous):
    episodes = [(f"e{i}", episode()) for i in range(3)]
    writer = Writer(Seeded(), words)
    batches = list(write_chains(writer, episodes, seeds=[1, 2], steps=3, previous=previous))
    shown = [re.findall(r"^\| Rule (\d+)\.$", batch.prompt, re.MULTILINE) for batch in batches]
    mine = [str(batch.seed) for batch in batches]
    assert len(set(mine)) == 6
    assert shown[4:] == ([[mine[0], mine[2]], [mine[1], mine[3]]] if previous else [[], []])
    assert [batch.scheme for batch in batches[:2]] == ["experience", "experience"]
    assert {batch.scheme for batch in batches[2:]} == {"experience-previous" if previous else "experience"}


def test_a_failed_batch_keeps_its_step():
    episodes = [(f"e{i}", episode()) for i in range(3)]
    item = "- EXPERIENCE ITEM: Rule {}. [turns 0]"
    writer, _ = answering(item.format(1), "no", item.format(3))
    found = candidates(write_chains(writer, episodes, seeds=[7], steps=3, previous=True), [7])
    assert [[lesson.statement for lesson in c.lessons] for c in found] == [
        ["Rule 1."],
        ["Rule 1."],
        ["Rule 1.", "Rule 3."],
    ]


@pytest.mark.parametrize(("seeds", "steps"), [([1], 3), ([1], 0), ([1, 1], 2)])
def test_chains_that_cannot_be_are_refused(seeds, steps):
    with pytest.raises(UsageError, match="different seeds and 1 to 2 steps"):
        write_chains(
            Writer(Seeded(), words), [("a", episode()), ("b", episode())], seeds=seeds, steps=steps, previous=True
        )


def test_chains_refuse_test_episodes():
    with pytest.raises(UsageError, match="test split"):
        write_chains(Writer(Seeded(), words), [("a", episode(split=Split.TEST))], seeds=[1], steps=1, previous=True)


# -- operations --


def test_four_operations_reach_the_bank_as_added_rows(bank, pair):
    (a, _), (b, _) = pair
    old = [rule(bank, f"Rule {i}.", [(a, 0)]) for i in range(3)]
    order = sorted(old)  # among equals by id
    writer = scripted(
        "ADD: New. [episode 1, turns 0]",
        "AGREE 1 [episode 2, turns 1]",
        "EDIT 2: Better. [episode 1, turns 2]",
        "REMOVE 3 [episode 2, turns 0]",
    )
    [batch] = write_operations(writer, [pair], bank.lessons(), bank.votes())
    assert batch.failed is None
    assert [type(delta) for delta in batch.deltas] == [Add, Agree, Edit, Remove]
    done = apply(bank, batch.deltas)
    new, agreed, better = done.lessons
    assert agreed == order[0]
    assert bank.lesson(new)[1].evidence == ((a, 0),)
    assert bank.lesson(agreed)[1].evidence == ((a, 0), (b, 1))
    assert bank.lesson(better)[1].evidence == ((a, 2),)
    statuses = bank.statuses()
    assert [statuses[key] for key in (new, *order)] == [Status.ACTIVE, Status.ACTIVE, Status.REPLACED, Status.ACTIVE]
    entry = bank.log(order[1])[-1]
    assert (entry.op, entry.other, entry.actor) == (Op.REPLACE, better, "write:operations")
    assert bank.votes() == {agreed: (1.0,), better: (1.0,), order[2]: (-1.0,)}
    assert bank.counts()["lessons"] == 5  # what was replaced is still there


def test_a_rule_is_retired_when_its_counter_reaches_0(bank, pair):
    key = rule(bank, "Wrong.", [(pair[0][0], 0)])
    objection = "REMOVE 1 [episode 1, turns 0]"
    seen = []
    for _ in range(3):
        [batch] = write_operations(scripted(objection), [pair], bank.lessons(), bank.votes())
        apply(bank, batch.deltas)
        seen.append((bank.statuses()[key], batch.failed is None))
    assert seen == [(Status.ACTIVE, True), (Status.RETIRED, True), (Status.RETIRED, False)]
    assert bank.log(key)[-1].op is Op.RETIRE
    assert bank.votes()[key] == (-1.0, -1.0)


def test_agreement_and_other_votes_uphold_a_rule(bank, pair):
    key = rule(bank, "Doubtful.", [(pair[0][0], 0)])
    bank.vote([(key, 2.0)], "outcome")
    for line in ["REMOVE", "REMOVE", "AGREE", "REMOVE", "REMOVE"]:
        [batch] = write_operations(scripted(f"{line} 1 [episode 1, turns 0]"), [pair], bank.lessons(), bank.votes())
        apply(bank, batch.deltas)
    assert bank.statuses()[key] is Status.ACTIVE  # 2 + 2 - 1 - 1 + 1 - 1 - 1 = 1
    [batch] = write_operations(scripted("EDIT 1: Clear. [episode 1, turns 0]"), [pair], bank.lessons(), bank.votes())
    [new] = apply(bank, batch.deltas).lessons
    assert 2 + sum(bank.votes()[new]) == 2  # goes on from 1, and the new wording counts 1


def test_each_batch_sees_the_rules_as_the_last_one_left_them(bank, pair):
    writer, read = answering(
        "ADD: One. [episode 1, turns 0]\nADD: Two. [episode 1, turns 0]",
        "nonsense",
        "EDIT 1: Three. [episode 1, turns 1]",
        "REMOVE 2 [episode 1, turns 0]",
        "REMOVE 2 [episode 1, turns 0]",
        "NOTHING NEW",
    )
    batches = list(write_operations(writer, [pair] * 6))
    shown = [re.findall(r"^\d+ \| (.+)$", text, re.MULTILINE) for text in read]
    first = sorted(["One.", "Two."], key=lambda said: lesson_id(Lesson("strategy", "house/7", said, {}, ())))
    assert shown == [[], first, first, ["Three.", first[1]], ["Three.", first[1]], ["Three."]]
    apply(bank, [delta for batch in batches for delta in batch.deltas])
    assert [lesson.statement for _, lesson in bank.lessons()] == ["Three."]


def test_only_rules_of_the_scope_that_a_model_may_change_are_shown(bank, pair):
    key = pair[0][0]
    rule(bank, "Mine.", [(key, 0)])
    rule(bank, "Elsewhere.", [(key, 0)], scope="house/8")
    bank.add_lessons([Lesson("place", "house/7", "coin in crate.", {"name": "coin", "place": "crate"}, ((key, 0),))])
    writer, read = answering("NOTHING NEW")
    rule(bank, "Everywhere.", [(key, 0)], scope="global")
    rule(bank, "In houses.", [(key, 0)], scope="house")
    list(write_operations(writer, [pair], bank.lessons()))
    shown = re.findall(r"^\d+ \| (.+)$", read[0], re.MULTILINE)
    assert sorted(shown) == ["Everywhere.", "In houses.", "Mine."]


def test_at_most_twenty_rules_are_shown_the_best_first(bank, pair):
    keys = [rule(bank, f"Rule number {i}.", [(pair[0][0], 0)]) for i in range(25)]
    bank.vote([(keys[13], 1.0), (keys[7], 3.0)], "judge")
    writer, read = answering("NOTHING NEW", "NOTHING NEW")
    list(write_operations(writer, [pair], bank.lessons(), bank.votes()))
    shown = re.findall(r"^\d+ \| Rule number (\d+)\.$", read[0], re.MULTILINE)
    assert (shown[:2], len(shown)) == (["7", "13"], 20)
    assert "(5 more are not shown: there is no room for them)\n=====" in read[0]
    list(write_operations(replace(writer, room=17), [pair], bank.lessons(), bank.votes()))
    assert len(re.findall(r"^\d+ \| Rule", read[1], re.MULTILINE)) == 3


def test_an_edit_that_changes_nothing_fails(bank, pair):
    rule(bank, "Same.", [(pair[0][0], 0)])
    [batch] = write_operations(scripted("EDIT 1: Same. [episode 1, turns 0]"), [pair], bank.lessons())
    assert batch.failed == "EDIT 1 changes nothing"


def test_what_was_retired_meanwhile_is_left_alone(bank, pair):
    cited = [(pair[0][0], 0)]
    gone, kept, other = (rule(bank, said, cited) for said in ("Gone.", "Kept.", "Other."))
    lessons = bank.lessons()
    numbers = {key: n for n, key in enumerate(sorted([gone, kept, other]), 1)}
    writer = scripted(
        f"EDIT {numbers[gone]}: Again. [episode 1, turns 0]",
        f"EDIT {numbers[kept]}: Banned. [episode 1, turns 0]",
        f"AGREE {numbers[other]} [episode 1, turns 1]",
    )
    [batch] = write_operations(writer, [pair], lessons)
    bank.note(gone, Op.RETIRE, "harmful")
    banned = rule(bank, "Banned.", cited)
    bank.note(banned, Op.RETIRE, "harmful")
    done = apply(bank, batch.deltas)
    assert [delta.lesson.statement for delta in done.left_out if isinstance(delta, Edit)] == ["Again.", "Banned."]
    assert {lesson.statement for _, lesson in bank.lessons()} == {"Kept.", "Other."}


def test_applying_twice_makes_no_lesson_twice(bank, pair):
    rule(bank, "Old.", [(pair[0][0], 0)])
    [batch] = write_operations(
        scripted("ADD: New. [episode 1, turns 0]", "EDIT 1: Newer. [episode 1, turns 0]"), [pair], bank.lessons()
    )
    apply(bank, batch.deltas)
    before = bank.lessons()
    assert len(apply(bank, batch.deltas).left_out) == 1
    assert bank.lessons() == before
    assert bank.verify() == []


def test_a_lesson_on_an_episode_that_is_not_in_the_bank_is_refused(bank):
    [batch] = write_items(scripted("- EXPERIENCE ITEM: Look. [turns 0]"), [("elsewhere", episode())])
    with pytest.raises(BankError, match="cites episode 'elsewhere'"):
        apply(bank, batch.deltas)
    assert bank.counts()["lessons"] == 0


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        ([("a", episode()), ("b", episode(scope="house/8"))], r"got scopes \['house/7', 'house/8'\]"),
        ([], r"got scopes \[\]"),
        ([("a", episode(split=Split.TEST))], "test split"),
    ],
)
def test_odd_batches_are_refused(batch, says):
    with pytest.raises(UsageError, match=says):
        write_operations(scripted("NOTHING NEW"), [batch])


def test_won_and_lost_are_compared_then_the_won_ones_by_eight():
    outcomes = [WON, LOST, LOST, WON, WON, FAILED, OUT]
    known = [(f"e{i}", episode(o, fingerprint=str(i // 4))) for i, o in enumerate(outcomes)]
    known += [(f"w{i}", episode(WON, "all", scope="house/8")) for i in range(9)]
    found = [[key for key, _ in batch] for batch in comparisons(known)]
    assert found == [
        ["e0", "e1"], ["e3", "e2"], ["e4", "e6"], ["e0", "e3", "e4"], [f"w{i}" for i in range(8)], ["w8"],
    ]  # fmt: skip


# -- critique --


def test_groups_are_rollouts_of_one_task_with_both_outcomes():
    known = [("a1", episode(LOST)), ("b1", episode(WON, "g")), ("a2", episode(WON)), ("a3", episode(FAILED))]
    known += [("b2", episode(WON, "g")), ("a4", episode(OUT)), ("c1", episode(LOST, "h")), ("c2", episode(FAILED, "h"))]
    assert [[key for key, _ in group] for group in rollout_groups(known)] == [["a2", "a1", "a4"]]


@pytest.mark.parametrize(("wins", "losses"), [(1, 1), (1, 63), (63, 1), (5, 5), (7, 4), (3, 30), (32, 32)])
def test_every_group_has_both_sides_and_at_most_five(wins, losses):
    known = [(f"{o}{i}", episode(o)) for o, n in ((WON, wins), (LOST, losses)) for i in range(n)]
    groups = rollout_groups(known)
    assert groups
    assert len({key for group in groups for key, _ in group}) == sum(map(len, groups))
    for group in groups:
        assert 2 <= len(group) <= 5
        assert 0 < sum(e.won for _, e in group) < len(group)
        assert len(group) == min(5, wins + losses) or len(groups) > 1


def test_a_critique_shows_all_attempts_and_gives_at_most_two_lessons(bank, pair):
    line = "- EXPERIENCE ITEM: Open it before you go. [episode 1, turns 0; episode 2, turns 1]"
    writer, read = answering(line, "\n".join([line] * 3))
    [batch] = write_critiques(writer, [tuple(reversed(pair))])
    assert re.search(r"Episode 1\n.*it was won\.\n\nEpisode 2\n.*it was lost\.", read[0], re.DOTALL)
    (a, _), (b, _) = pair
    [key] = apply(bank, batch.deltas).lessons
    assert bank.lesson(key)[1].evidence == tuple(sorted([(a, 0), (b, 1)]))
    assert bank.log(key)[0].actor == "write:critique"
    [batch] = write_critiques(writer, [tuple(pair)])
    assert "at most 2 lines, got 3" in str(batch.failed)


@pytest.mark.parametrize(
    "group",
    [
        (("a", episode(WON)), ("b", episode(WON))),
        (("a", episode(LOST)), ("b", episode(OUT))),
        (("a", episode(WON)), ("b", episode(LOST, "g"))),
        (("a", episode(WON)), ("b", episode(LOST, scope="house/8"))),
        (),
    ],
)
def test_a_group_without_a_signal_is_refused(group):
    with pytest.raises(UsageError, match="rollouts of one task of which some were won"):
        write_critiques(scripted("NOTHING NEW"), [group])
