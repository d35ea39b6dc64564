"""OPCD's pool of chains as contexts, and what is chosen among them."""

from itertools import count

import pytest

from cli.notes import write_pool
from experience_bank import Bank
from experience_bank.chains import chain_context, drawn, fullest, pool, spread, where
from experience_bank.contexts import Validation
from experience_bank.writing import Candidate, Writer
from opcd_agents.errors import ModelError, UsageError
from opcd_agents.policies.scripted import HumanPolicy
from opcd_agents.types import Episode, Lesson, Outcome, Provenance, Split, Task, Turn


def words(text):
    return len(text.split())


def candidate(seed, step, count):
    return Candidate(seed, step, tuple(Lesson("strategy", "s", f"rule {seed} {i}", {}, ()) for i in range(count)))


@pytest.fixture
def bank(tmp_path):
    with Bank.open(tmp_path / "bank.db") as opened:
        for one in (candidate(seed, step, step) for seed in range(4) for step in range(1, 13)):
            opened.add_lessons(one.lessons)
            made = chain_context(one, words, 1000, "m")
            assert made is not None
            opened.add_context(made, where(one, "0RUN", "m"))
        yield opened


def test_the_newest_whole_items_are_kept():
    full = chain_context(candidate(0, 5, 5), words, 100, "m")
    assert full is not None
    assert full.text == "\n".join(f"- rule 0 {i}" for i in range(5))
    short = chain_context(candidate(0, 5, 5), words, 11, "m")
    assert short is not None
    assert (short.text, short.tokens) == ("- rule 0 3\n- rule 0 4", 8)
    assert short.lessons == full.lessons[3:]
    assert chain_context(candidate(0, 5, 0), words, 100) is None
    assert chain_context(candidate(0, 5, 5), words, 3) is None


def test_the_pool_is_every_step_of_every_chain(bank):
    made = chain_context(candidate(9, 1, 1), words, 100, "m")
    assert made is not None
    bank.add_context(made)  # not as a step of a chain: no part of it
    links = pool(bank, "s")
    assert [(link.chain, link.step) for link in links] == [(c, s) for c in range(4) for s in range(1, 13)]
    assert all(link.context.text.count("\n") == link.step - 1 for link in links)
    assert pool(bank, "elsewhere") == []


def test_test_time_draws_different_chains_at_step_ten(bank):
    links = pool(bank, "s")
    chosen = drawn(links, seed=3)
    assert chosen == drawn(links, seed=3)
    assert len({c.text.split("\n")[0] for c in chosen}) == 3
    assert {len(c.lessons) for c in chosen} == {10}
    assert len({tuple(c.id for c in drawn(links, seed=seed)) for seed in range(20)}) > 1
    with pytest.raises(UsageError, match=r"wanted 3 chains .* step 13, got 0"):
        drawn(links, step=13)


def test_filtered_takes_the_most_wins_and_test_time_their_mean():
    found = [
        Validation(key, "s", "m", "w", Split.VALIDATION, 0, {"t": (wins, 4, 4, 4)})
        for key, wins in (("a", 1), ("b", 3), ("c", 2))
    ]
    assert fullest(found) == "b"  # although none beats playing without
    assert spread(found) == (0.5, 0.25)
    assert spread([found[1], found[1], found[0]])[0] == pytest.approx(
        (0.75 + 0.75 + 0.25) / 3
    )  # two chains, one context
    assert spread(found[:1]) == (0.25, 0.0)
    assert fullest([]) is None


def fill(bank, count=3, split=Split.TRAIN):
    for seed in range(count):
        task = Task("e", {}, seed, split, "s", str(seed), None, 9)
        bank.add_episode(Episode(task, (Turn("a", "b", "c"),), Outcome.LOST, Provenance("m", "w", 0, "v")))


def test_a_pool_is_of_one_run_the_latest(bank):
    for run, tag in (("1RUN", "other"), ("1RUN", "other"), ("0RUX", "older")):
        for step in (1, 2):
            one = candidate(f"{tag} 0", step, step)
            made = chain_context(one, words, 1000, tag)
            bank.add_context(made, where(candidate(0, step, step), run, tag))
    links = pool(bank, "s")
    assert [(link.chain, link.step, link.context.tokenizer) for link in links] == [(0, 1, "other"), (0, 2, "other")]


def test_a_chain_that_is_cut_off_keeps_what_it_wrote(tmp_path):
    number = count(1)

    def said(_):
        if (now := next(number)) == 6:
            raise ModelError("the endpoint is down")
        return f"- EXPERIENCE ITEM: Rule {now}. [turns 0]"

    with Bank.open(tmp_path / "bank.db") as bank:
        fill(bank)
        with pytest.raises(ModelError):
            write_pool(bank, "s", Writer(HumanPolicy(said), words), range(2), 3, 100, previous=False)
        assert [(link.chain, link.step) for link in pool(bank, "s")] == [(0, 1), (0, 2), (1, 1), (1, 2)]
        assert len(bank.lessons("s")) == 4


def test_an_item_that_is_too_long_is_left_out_of_its_chain():
    long = Lesson("strategy", "s", "open it " * 60 + "never", {}, ())
    short = Lesson("strategy", "s", "look first", {}, ())
    made = chain_context(Candidate(0, 2, (long, short)), words, 1000)
    assert made is not None
    assert (made.text, len(made.lessons)) == ("- look first", 1)
    assert chain_context(Candidate(0, 1, (long,)), words, 1000) is None


def test_no_chain_learns_from_a_task_that_is_judged_by(tmp_path):
    writer = Writer(HumanPolicy(lambda text: "- EXPERIENCE ITEM: Look. [turns 0]"), words)
    with Bank.open(tmp_path / "bank.db") as bank:
        fill(bank)
        fill(bank, 1, Split.TEST)
        with pytest.raises(
            UsageError, match="1 train episodes on s are of tasks that stand here as validation or test"
        ):
            write_pool(bank, "s", writer, range(2), 3, 100, previous=False)
        assert bank.two_sided() == bank.episode_ids()[:1]


def test_a_writer_fills_the_pool(tmp_path):
    number = count(1)
    writer = Writer(HumanPolicy(lambda text: f"- EXPERIENCE ITEM: Rule {next(number)}. [turns 0]"), words)
    with Bank.open(tmp_path / "bank.db") as bank:
        fill(bank)
        assert write_pool(bank, "s", writer, range(2), 3, 100, previous=False) == ([], 6)
        links = pool(bank, "s")
        assert [(link.chain, link.step) for link in links] == [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3)]
        assert links[2].context.text == "- Rule 1.\n- Rule 3.\n- Rule 5."
        assert [bank.lesson(key)[1].statement for key in links[2].context.lessons] == ["Rule 1.", "Rule 3.", "Rule 5."]
        assert all(lesson.evidence for _, lesson in bank.lessons("s"))
