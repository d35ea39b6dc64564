"""The bank's commands on a bank that the pocket model filled: from episodes to a context that has proved itself."""

import json
import shutil
from pathlib import Path

import pytest

from experience_bank import Bank
from opcd_agents.types import Lesson

SCOPE = "house/5"


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A bank with 24 episodes and the notes that come of them."""
    from cli import models, notes, workflow
    from cli.models import token_counter
    from envs import house_tasks

    path = tmp_path_factory.mktemp("bank") / "bank.db"
    policy = models.policy("pocket")
    with Bank.open(path) as bank:
        workflow.gather(policy, workflow.split(house_tasks(5), "train"), 24, seed=0, keep=bank.add_episode)
        notes.make_notes(bank, SCOPE, token_counter("pocket"), tokenizer="pocket")
    return path


@pytest.fixture
def bank(filled, tmp_path):
    return shutil.copy(filled, tmp_path / "bank.db")


def last(done):
    assert done.code == 0, done.err
    return json.loads(done.out.splitlines()[-1])


def test_what_was_chosen_by_measurement_stands_for_its_scope(opcd, bank):
    short = last(opcd("bank", "context", SCOPE, "--budget", "40", "--bank", bank, "--json"))
    raw = last(opcd("bank", "context", SCOPE, "--style", "raw", "--budget", "300", "--bank", bank, "--json"))
    assert (short["renderer"], short["tokenizer"], short["budget"]) == ("notes/1", "pocket", 40)
    assert raw["tokens"] <= 300
    with Bank.open(bank, "r") as opened:
        full = opened.contexts()[0]
        assert opened.context(SCOPE).id == raw["id"]
    found = last(opcd("bank", "validate", "house:5", "--episodes", 16, "--bank", bank, "--json"))
    gaps = {row["context"]: row["gap"] for row in found["contexts"]}
    assert gaps[full.id] > 0.3
    assert gaps[full.id] > gaps[raw["id"]]
    assert found["blessed"] in (full.id, short["id"])
    with Bank.open(bank, "r") as opened:
        assert opened.context(SCOPE).id == found["blessed"]
        assert len(opened.validations(SCOPE)) == 3
        votes = opened.votes()
        assert all(votes[key][0] == gaps[full.id] for key in full.lessons)  # lessons hear how their contexts did
    assert last(opcd("bank", "bless", raw["id"], "--bank", bank, "--json"))["blessed"] == raw["id"]


@pytest.mark.parametrize("split", ["train", "test"])
def test_contexts_are_chosen_on_validation_tasks_only(opcd, bank, split):
    done = opcd("bank", "validate", "house:5", "--split", split, "--bank", bank)
    assert done.code == 2
    assert "wanted the validation split" in done.err


def test_every_episode_can_be_played_again(opcd, bank):
    with Bank.open(bank, "r") as opened:
        keys = opened.episode_ids()
    for key in keys[:6]:
        assert last(opcd("bank", "replay", key, "--bank", bank, "--json"))["same"]
    with Bank.open(bank) as opened, opened._store.writing():
        opened._store.do("UPDATE turns SET observation = 'elsewhere' WHERE episode_id = ? AND number = 1", [(keys[0],)])
    done = opcd("bank", "replay", keys[0], "--bank", bank)
    assert (done.code, "parts at turn 1" in done.err) == (1, True)


def test_words_that_say_the_same_are_merged_and_can_be_had_back(opcd, bank):
    said = ["always open the grey box first", "Always open the grey box first!", "never open the grey box first"]
    with Bank.open(bank) as opened:
        keys = opened.add_lessons([Lesson("strategy", SCOPE, text, {}, ()) for text in said], "test")
    looked = last(opcd("bank", "consolidate", SCOPE, "--dry-run", "--bank", bank, "--json"))
    merged = last(opcd("bank", "consolidate", SCOPE, "--bank", bank, "--json"))
    assert looked["merged"] == merged["merged"]
    assert set(merged["merged"]) | set(merged["merged"].values()) == set(keys[:2])
    assert not last(opcd("bank", "consolidate", SCOPE, "--bank", bank, "--json"))["merged"]
    shown = opcd("bank", "show", next(iter(merged["merged"])), "--bank", bank)
    assert "replace" in shown.out


def test_banks_are_merged_forgotten_from_and_verified(opcd, bank, tmp_path):
    other = tmp_path / "other.db"
    first = last(opcd("bank", "merge", bank, "--bank", other, "--json"))
    assert first["new"]["episodes"] == 24
    again = last(opcd("bank", "merge", bank, "--bank", other, "--json"))
    assert not any(again["new"].values())
    with Bank.open(bank, "r") as opened:
        gone = opened.episode_ids()[0]
    assert opcd("bank", "forget", gone, "--reason", "private", "--bank", bank).code == 1
    assert (
        last(opcd("bank", "forget", gone, "--reason", "private", "--yes", "--bank", bank, "--json"))["forgotten"]
        == gone
    )
    last(opcd("bank", "merge", other, "--bank", bank, "--json"))
    last(opcd("bank", "merge", bank, "--bank", other, "--json"))
    verified = [last(opcd("bank", "verify", "--bank", path, "--json")) for path in (bank, other)]
    assert verified[0]["digest"] == verified[1]["digest"]
    assert verified[0]["counts"]["episodes"] == 23
    assert last(opcd("bank", "gc", "--bank", bank, "--json"))["removed"] == 0


def test_shards_are_collected_into_and_merged(opcd, tmp_path):
    (tmp_path / "shards").mkdir()
    for seed in (1, 2):
        done = opcd("collect", "house:5", "--episodes", 4, "--seed", seed, "--bank", f"shards:{tmp_path / 'shards'}")
        assert done.code == 0, done.err
    merged = last(opcd("bank", "merge", f"shards:{tmp_path / 'shards'}", "--bank", tmp_path / "all.db", "--json"))
    assert (merged["merged"], merged["bank"]["episodes"]) == (2, 8)


def test_merging_what_is_not_there_makes_no_bank(opcd, tmp_path):
    done = opcd("bank", "merge", tmp_path / "none.db", "--bank", tmp_path / "new.db")
    assert (done.code, (tmp_path / "new.db").exists()) == (1, False)


def test_damage_is_told(opcd, bank):
    with Bank.open(bank) as opened, opened._store.writing():
        opened._store.do("UPDATE turns SET action = 'x'", [()])
    verified, looked = opcd("bank", "verify", "--bank", bank), opcd("bank", "doctor", "--bank", bank)
    assert (verified.code, looked.code) == (1, 1)
    assert "24 no longer match" in verified.err
    assert "look here" in looked.out


READS = [
    ("ls",), ("ls", "lessons"), ("ls", "contexts"), ("stats",), ("verify",), ("doctor",), ("show", SCOPE),
    ("consolidate", SCOPE, "--dry-run"),
]  # fmt: skip


@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_commands_that_read_leave_every_byte_as_it_was(opcd, bank, tmp_path, as_json):
    before = Path(bank).read_bytes()
    key = last(opcd("bank", "ls", "--bank", bank, "--json"))["episodes"][0]["id"]
    for command in (*READS, ("show", key), ("replay", key)):
        done = opcd("bank", *command, "--bank", bank, *as_json)
        assert done.code == 0, (command, done.err)
        if as_json:
            json.loads(done.out.splitlines()[-1])
    assert Path(bank).read_bytes() == before
    left = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(left) <= {"bank.db", "bank.db-shm", "bank.db-wal"}  # SQLite's own, to read beside a writer
    assert left.get("bank.db-wal", 0) == 0


def test_a_bank_goes_out_and_comes_back_as_it_was(opcd, bank, tmp_path):
    last(opcd("bank", "export", tmp_path / "out.jsonl", "--bank", bank, "--json"))
    last(opcd("bank", "import", tmp_path / "out.jsonl", "--trusted", "--bank", tmp_path / "back.db", "--json"))
    with Bank.open(bank, "r") as one, Bank.open(tmp_path / "back.db", "r") as other:
        assert one.digest() == other.digest()


def test_a_bank_of_others_has_to_prove_itself(opcd, bank, tmp_path):
    """Its lessons wait; a context that draws on them is tried, and if it is blessed they are let go."""
    own = tmp_path / "own.db"
    last(opcd("bank", "export", tmp_path / "out.jsonl", "--bank", bank, "--json"))
    [note] = last(opcd("bank", "import", tmp_path / "out.jsonl", "--bank", own, "--json"))["notes"]
    assert "lines of the lessons' log, 1 contexts" in note
    with Bank.open(own, "r") as opened:
        waiting = set(opened.statuses())
        assert (len(opened.episode_ids()), len(waiting), opened.lessons(), opened.contexts()) == (24, 28, [], [])
    done = opcd("bank", "context", SCOPE, "--bank", own)
    assert (done.code, "wait in quarantine" in done.err) == (2, True)
    made = last(opcd("bank", "context", SCOPE, "--quarantined", "--bank", own, "--json"))
    assert set(made["lessons"]) <= waiting
    assert last(opcd("bank", "validate", "house:5", "--episodes", 16, "--bank", own, "--json"))["blessed"] == made["id"]
    with Bank.open(own, "r") as opened:
        assert {key for key, _ in opened.lessons()} == set(made["lessons"])
        entry = opened.log(made["lessons"][0])[-1]
        assert (entry.op, entry.actor, made["id"] in entry.reason) == ("release", "validate", True)
    done = opcd("bank", "context", SCOPE, "--style", "raw", "--quarantined", "--bank", own)
    assert (done.code, "leave it out" in done.err) == (2, True)


def test_lessons_of_others_wait(opcd, bank, tmp_path):
    (tmp_path / "experience_1.txt").write_text("- EXPERIENCE ITEM: Keys open what is locked.\n")
    found = last(opcd("bank", "import", tmp_path / "experience_1.txt", "--bank", bank, "--json"))
    assert found["formats"] == ["opcd"]
    lessons = last(opcd("bank", "ls", "lessons", "--bank", bank, "--json"))["lessons"]
    [row] = [row for row in lessons if "Keys" in row["statement"]]
    assert row["status"] == "quarantined"
    mark = ("bank", "mark", row["id"][:8], "--bank", bank, "--json", "--reason", "read it")
    assert last(opcd(*mark, "release"))["status"] == "active"
    made = last(opcd("bank", "context", SCOPE, "--style", "document", "--budget", 900, "--bank", bank, "--json"))
    assert (row["id"] in made["lessons"], made["scope"]) == (True, SCOPE)  # a lesson on `global` holds here too
    assert last(opcd("bank", "extract", SCOPE, "--bank", bank, "--json"))["lessons"] == len(lessons)
    assert last(opcd(*mark, "retire"))["status"] == "retired"
    assert last(opcd(*mark, "restore"))["status"] == "active"


def test_what_is_whole_in_a_damaged_bank_is_saved(opcd, bank, tmp_path):
    whole = Path(bank).read_bytes()
    Path(bank).write_bytes(whole[: len(whole) * 2 // 3])
    assert opcd("bank", "doctor", "--bank", bank).code == 1
    saved = last(opcd("bank", "recover", bank, tmp_path / "saved.db", "--json"))
    assert saved["saved"]["episodes"] > 0
    assert last(opcd("bank", "verify", "--bank", tmp_path / "saved.db", "--json"))["damaged"] == []


def test_an_unknown_format_names_the_nearest(opcd, bank, tmp_path):
    done = opcd("bank", "export", tmp_path / "x", "--format", "parket", "--bank", bank)
    assert (done.code, "parquet" in done.err) == (2, True)


@pytest.mark.parametrize("when", ["task", "state"])
def test_players_are_reminded_of_lessons(opcd, bank, when):
    done = opcd("collect", "house:5", "--episodes", 2, "--retrieve", when, "--bank", bank)
    assert done.code == 0, done.err
    with Bank.open(bank, "r") as opened:
        reminded = [episode for _, episode in opened.episodes(role="teacher")]
        plain = [episode for _, episode in opened.episodes(role="student")]
    roles = [row["role"] for row in last(opcd("bank", "ls", "--bank", bank, "--json"))["episodes"]]
    assert (roles.count("teacher"), roles.count("student")) == (2, 24)
    groups = last(opcd("bank", "stats", "--bank", bank, "--json"))["groups"]
    assert {(row["role"], row["episodes"]) for row in groups} == {("teacher", 2), ("student", 24)}
    assert len(reminded) == 2
    longest = max(len(turn.prompt_ids) for e in plain for turn in e.turns)
    at = [len(turn.prompt_ids) > longest for e in reminded for turn in e.turns[:2]]
    assert at == ([True, False, True, False] if when == "task" else [True] * 4)
    shown = opcd("play", "house:5", "--model", "pocket", "--retrieve", when, "--bank", bank)
    assert (shown.code, "Notes that may fit here" in shown.out) == (0, True)


def test_a_pool_needs_a_writer_that_can_write(opcd, bank):
    chains = ("bank", "extract", SCOPE, "--scheme", "chains", "--bank", bank)
    assert (opcd(*chains).code, opcd(*chains, "--writer", "pocket", "--steps", 99).code) == (2, 2)
    done = opcd(*chains, "--writer", "pocket", "--chains", 2, "--steps", 2, "--json")
    tried = json.loads(done.out.splitlines()[-1])
    assert (done.code, tried["pool"], len(tried["failed"])) == (1, 0, 4)  # a model of a million parameters only plays
    assert "the pool is empty" in done.err
    for setting in ("filtered", "test-time"):
        done = opcd("bank", "validate", "house:5", "--setting", setting, "--bank", bank)
        assert (done.code, "wanted a pool of chains" in done.err) == (2, True)
