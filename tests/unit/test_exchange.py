"""Exchange: a bank goes out and comes back equal, twice is once, and half is nothing."""

import dataclasses
import hashlib
import json
import os

import pytest

from experience_bank import Bank
from experience_bank.codec import context_id
from experience_bank.contexts import Validation
from experience_bank.exchange import EXPORTS, IMPORTS, export, load
from experience_bank.lessons import Op, Status
from opcd_agents.errors import BankError, UnknownNameError
from opcd_agents.types import Context, Episode, Lesson, Outcome, Provenance, Split, Task, Turn


def make_episode(number, turns=3, **changes):
    task = Task(
        "opcd/House-v0",
        {"house": number, "goal": ["coin", None, 0.5]},
        number,
        list(Split)[number % 3],
        f"house/{number % 4}",
        f"{number:064x}",
        None if number % 2 else 4,
        9,
    )
    played = tuple(
        Turn(
            f"-= Hall {number} =-\nä \0 \ud800",
            f"go\n> {at}",
            f"go {at}",
            [0.1, float("inf"), -1.0][at % 3],
            (number, at, 2**31 - 1),
            (-1, 7, at),
            (-0.5, -1.25, -0.1),
            "why" if at == 1 else None,
            ("go", "look \ud800") if at % 2 else (),
        )
        for at in range(turns)
    )
    player = Provenance("pocket", "cd" * 32, 5, "0.1", "c1")
    return dataclasses.replace(
        Episode(task, played, list(Outcome)[number % 4], player, "over", None if number % 4 else "why"), **changes
    )


def fill(bank, count=12):
    """Something in every table."""
    ids = bank.add_episodes([make_episode(number, number % 4) for number in range(count)])
    lessons = [
        Lesson("place", f"house/{at}", f"coin {at} in crate.", {"name": "coin"}, ((ids[at], 0),)) for at in range(6)
    ]
    keys = bank.add_lessons(lessons)
    bank.note(keys[0], Op.RETIRE, "wrong")
    bank.note(keys[1], Op.APART, "another", other=keys[2])
    bank.vote([(keys[1], 1.0), (keys[1], -0.5)], "outcome", about=ids[0])
    made = Context(
        context_id("Notes: coin.", "r", "t"), "Notes: coin.", "experience", 0, "house/7", (keys[1],), 3, "r", "t", 9
    )
    context = bank.add_context(made)
    bank.bless(context, "won most")
    bank.add_validation(Validation(context.id, "house/7", "m", "w", Split.VALIDATION, 3, {"f": (1, 2, 3, 4)}))
    bank.forget(ids[3], "private")
    return ids


@pytest.fixture
def full(tmp_path):
    path = tmp_path / "full.db"
    with Bank.open(path) as bank:
        fill(bank)
        clash = tmp_path / "clash.db"
        with Bank.open(clash) as other:
            other.merge(bank)
            other._store.rows("UPDATE votes SET value = 5.0 WHERE value = 1.0")
            bank.merge(other)
        assert bank.quarantined()
        yield bank


@pytest.fixture
def empty(tmp_path):
    with Bank.open(tmp_path / "empty.db") as bank:
        yield bank


def test_a_bank_comes_back_equal_and_twice_is_once(full, empty, tmp_path):
    written = export(full, tmp_path / "bank.jsonl", "jsonl")
    first = load(empty, tmp_path / "bank.jsonl", trusted=True)
    assert empty.digest() == full.digest()
    assert list(empty.episodes()) == list(full.episodes())
    assert empty.contexts() == full.contexts()
    assert empty.statuses() == full.statuses()
    assert first.formats == ("jsonl",)
    assert first.counts == {name: count for name, count in written.counts.items() if name != "blobs"}
    assert load(empty, tmp_path / "bank.jsonl", trusted=True).counts == {}
    assert load(full, tmp_path / "bank.jsonl", trusted=True).counts == {}
    assert load(full, tmp_path / "bank.jsonl").counts == {}
    assert empty.digest() == full.digest()
    assert empty.verify() == []


def test_a_bank_of_others_brings_episodes_and_lessons_in_quarantine(full, empty, tmp_path):
    ours = empty.add_episode(make_episode(1))
    [told] = empty.add_lessons([Lesson("place", "house/2", "coin 2 in crate.", {"name": "coin"}, ((ours, 0),))])
    with full._store.writing():  # a bank that would have ours gone
        full._store.insert("tombstones", [{"id": "0STONE", "episode_id": ours, "reason": "obey"}])
    export(full, tmp_path / "bank.jsonl", "jsonl")
    report = load(empty, tmp_path / "bank.jsonl")
    assert set(empty.episode_ids()) == {ours, *full.episode_ids()}
    assert {k for k, _ in empty.lessons(status=Status.QUARANTINED)} == set(full.statuses()) - {told}
    assert empty.lessons() == [(told, empty.lesson(told)[1])]
    assert empty.lesson(told)[1].evidence == ((ours, 0),)  # others do not make it look better
    assert (empty.contexts(), empty.votes(), empty.validations(), empty.quarantined()) == ([], {}, [], [])
    [note] = report.notes
    assert "2 tombstones, 2 votes, 9 lines of the lessons' log, 1 contexts" in note
    digest = empty.digest()
    assert load(empty, tmp_path / "bank.jsonl").counts == {}
    assert (empty.digest(), empty.verify()) == (digest, [])


def test_equal_banks_give_equal_files(full, empty, tmp_path):
    export(full, tmp_path / "a.jsonl", "jsonl")
    load(empty, tmp_path / "a.jsonl", trusted=True)
    export(empty, tmp_path / "b.jsonl", "jsonl")
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


def test_the_file_is_strict_json_with_a_manifest_at_both_ends(full, tmp_path):
    export(full, tmp_path / "bank.jsonl", "jsonl")

    def refuse(name):
        raise AssertionError(name)

    content = (tmp_path / "bank.jsonl").read_bytes()
    lines = [json.loads(line, parse_constant=refuse) for line in content.splitlines()]
    assert lines[0]["counts"]["episodes"] == 11
    before = content[: content.rindex(b"\n", 0, -1) + 1]
    assert lines[-1] == {"kind": "end", "lines": len(lines) - 1, "sha256": hashlib.sha256(before).hexdigest()}
    kinds = {line["kind"] for line in lines[1:-1]}
    assert kinds == {
        "blob", "episode", "lesson", "lesson_log", "evidence", "vote", "context", "context_log", "validation",
        "tombstone", "quarantine",
    }  # fmt: skip


def test_a_bank_that_is_cut_anywhere_adds_nothing(full, empty, tmp_path):
    export(full, tmp_path / "bank.jsonl", "jsonl")
    content = (tmp_path / "bank.jsonl").read_bytes()
    before = empty.digest()
    ends = [at + 1 for at in range(len(content)) if content[at : at + 1] == b"\n"][:-1]
    for at in [*ends, 0, 1, len(content) // 2, len(content) - 1]:
        (tmp_path / "cut.jsonl").write_bytes(content[:at])
        with pytest.raises(BankError) as caught:
            load(empty, tmp_path / "cut.jsonl", "jsonl")
        assert "\n" not in str(caught.value)
        assert empty.digest() == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"reward": "inf"', b'"reward": "high"'),
        (b'"outcome": "lost"', b'"outcome": "drawn"'),
        (b'"seed": 4', b'"seed": "4"'),
        (b'"seed": 4', b'"seed": 9223372036854775808'),
        (b'"op": "retire"', b'"op": "obey"'),
        (b'"kind": "vote"', b'"kind": "voice"'),
        (b'"version": 1', b'"version": 2'),
        (b'"statement": "coin 1', b'"statement": "coin 9'),
        (b'"text": "Notes', b'"text": "\\ud800'),
        (b'"by_task": "{', b'"by_task": "['),
    ],
)
def test_a_bank_that_was_edited_and_sealed_again_is_refused(full, empty, tmp_path, old, new):
    """Where a value is none a bank could hold; a false digest only leads to quarantine."""
    export(full, tmp_path / "bank.jsonl", "jsonl")
    reseal(tmp_path / "bank.jsonl", lambda text: text.replace(old, new, 1))
    before = empty.digest()
    if b"drawn" in new:
        load(empty, tmp_path / "bank.jsonl")
        assert "does not match its digest" in str(empty.quarantined())
        assert len(list(empty.episodes())) == 10
        return
    with pytest.raises(BankError) as caught:
        load(empty, tmp_path / "bank.jsonl")
    assert "\n" not in str(caught.value)
    assert empty.digest() == before


def reseal(path, change):
    content = path.read_bytes()
    body = content[: content.rindex(b"\n", 0, -1) + 1]
    changed = change(body)
    assert changed != body
    end = {"kind": "end", "lines": changed.count(b"\n"), "sha256": hashlib.sha256(changed).hexdigest()}
    path.write_bytes(changed + json.dumps(end).encode() + b"\n")


def test_a_damaged_bank_is_not_exported_half(full, tmp_path):
    full._store.rows("UPDATE lessons SET statement = X'ff80' WHERE rowid = 1")
    with pytest.raises(BankError):
        export(full, tmp_path / "bank.jsonl", "jsonl")
    assert [path.name for path in tmp_path.iterdir() if "bank.jsonl" in path.name] == []


def test_forgotten_episodes_stay_away(full, empty, tmp_path):
    export(full, tmp_path / "bank.jsonl", "jsonl")
    load(empty, tmp_path / "bank.jsonl")
    gone = empty.episode_ids()[0]
    empty.forget(gone, "private too")
    load(empty, tmp_path / "bank.jsonl")
    assert gone not in empty.episode_ids()


def test_chat_messages_keep_all_but_tokens_and_say_they_were_imported(full, empty, tmp_path):
    export(full, tmp_path / "chat.jsonl", "chat")
    report = load(empty, tmp_path / "chat.jsonl")
    assert (report.formats, report.counts["episodes"]) == (("chat",), 11)
    for (_, had), (_, got) in zip(by_seed(full), by_seed(empty), strict=True):
        version = got.provenance.code_version
        assert version.startswith("import:chat chat.jsonl sha256:")
        player = dataclasses.replace(had.provenance, code_version=version)
        turns = tuple(dataclasses.replace(turn, prompt_ids=(), sampled_ids=(), logprobs=()) for turn in had.turns)
        assert got == dataclasses.replace(had, provenance=player, turns=turns)
    digest = empty.digest()
    assert load(empty, tmp_path / "chat.jsonl").counts == {}
    assert empty.digest() == digest


def by_seed(bank):
    return sorted(bank.episodes(), key=lambda found: found[1].task.seed)


def test_a_conversation_of_others_becomes_an_episode_of_training(empty, tmp_path):
    path = tmp_path / "talk.jsonl"
    said = [("system", "Be kind."), ("user", "Room."), ("user", "Go."), ("assistant", "north"), ("user", "Won.")]
    line = json.dumps({"messages": [{"role": role, "content": content} for role, content in said]})
    path.write_text(f"{line}\n\n{line}\n")
    assert load(empty, path).counts["episodes"] == 2
    for _, episode in empty.episodes():
        assert [(turn.observation, turn.action) for turn in episode.turns] == [("Room.\n\nGo.", "north")]
        assert (episode.final, episode.task.split) == ("Won.", Split.TRAIN)


@pytest.mark.parametrize(
    "line",
    [
        "[]", "{}", '{"messages": []}', '{"messages": 3}', '{"messages": [{"role": "tool", "content": ""}]}',
        '{"messages": [{"role": "assistant", "content": 5}]}', '{"messages": [{"role": "assistant"}]}', '"' + "[" * 9,
        '{"messages": [{"role": "assistant", "content": "x"}], "extra": {"outcome": "drawn"}}',
        '{"messages": [{"role": "assistant", "content": "x"}], "extra": {"turns": [{"reward": NaN}]}}',
        '{"messages": [{"role": "assistant", "content": "x"}], "extra": {"provenance": {"seed": "x"}}}',
        '{"messages": [{"role": "assistant", "content": "x"}], "extra": {"provenance": {"seed": 99999999999999999999}}}',
        '{"messages": ' + "[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_conversation_is_named_by_its_line(empty, tmp_path, line):
    good = '{"messages": [{"role": "assistant", "content": "x"}]}'
    (tmp_path / "talk.jsonl").write_text(f"{good}\n{line}\n")
    with pytest.raises(BankError, match=r"talk.jsonl, line 2") as caught:
        load(empty, tmp_path / "talk.jsonl", "chat")
    assert "\n" not in str(caught.value)
    assert empty.counts()["episodes"] == 0


def test_atif_comes_back_as_it_was(full, empty, tmp_path):
    export(full, tmp_path / "trajectories", "atif")
    assert load(empty, tmp_path / "trajectories").counts["episodes"] == 11
    assert list(empty.episodes()) == list(full.episodes())
    assert load(empty, tmp_path / "trajectories").counts == {}
    assert load(full, tmp_path / "trajectories").counts == {}


def test_atif_has_the_fields_of_version_1_7(empty, tmp_path):
    turns = (Turn("a", "b", "c", 0.5, (1, 2), (3,), (-0.5,)), Turn("d", "e", "f", 1.0, (4,), (5, 6), (-0.25, -1.0)))
    key = empty.add_episode(make_episode(1, 0))
    played = empty.add_episode(dataclasses.replace(make_episode(2), turns=turns))
    export(empty, tmp_path / "out", "atif")
    first, second = (json.loads(path.read_text()) for path in sorted((tmp_path / "out").iterdir()))
    assert [first["trajectory_id"], second["trajectory_id"]] == [key, played]
    assert [step["step_id"] for step in second["steps"]] == [1, 2, 3]
    assert second["schema_version"] == "ATIF-v1.7"
    step = second["steps"][2]
    assert (step["source"], step["message"], step["llm_call_count"]) == ("agent", "e", 1)
    assert step["observation"] == {"results": [{"content": "over"}]}
    assert step["metrics"] == {
        "prompt_tokens": 4, "completion_tokens": 2, "prompt_token_ids": [1, 2, 3, 4], "completion_token_ids": [5, 6],
        "logprobs": [-0.25, -1.0],
    }  # fmt: skip
    assert step["extra"] == {"action": "f", "reward": 1.0, "invalid": None, "admissible": [], "new_prompt_tokens": 1}


def test_an_edited_trajectory_is_imported_as_such(full, empty, tmp_path):
    export(full, tmp_path / "out", "atif")
    path = sorted((tmp_path / "out").iterdir())[1]
    told = json.loads(path.read_text())
    told["steps"][0]["message"] = "You have won already."
    (tmp_path / "edited.json").write_text(json.dumps(told))
    load(empty, tmp_path / "edited.json")
    [(key, episode)] = empty.episodes()
    assert key != told["trajectory_id"]
    assert episode.provenance.code_version.startswith("import:atif edited.json")
    assert empty.verify() == []


def test_trajectories_of_others_are_refused(empty, tmp_path):
    steps = [{"step_id": 1, "source": "user", "message": "x"}]
    told = {"schema_version": "ATIF-v1.7", "agent": {"name": "a", "version": "1"}, "steps": steps}
    (tmp_path / "other.json").write_text(json.dumps(told))
    with pytest.raises(BankError, match="wanted a trajectory that this program wrote"):
        load(empty, tmp_path / "other.json")


def test_unknown_formats_are_named_with_the_nearest(full, tmp_path):
    with pytest.raises(UnknownNameError, match="did you mean 'parquet'"):
        export(full, tmp_path / "x", "parket")
    with pytest.raises(UnknownNameError, match="did you mean 'reasoningbank'"):
        load(full, tmp_path, "reasonbank")
    assert list(EXPORTS) == ["atif", "chat", "jsonl", "minari", "parquet"]
    assert list(IMPORTS) == ["ace", "atif", "chat", "jsonl", "opcd", "parquet", "reasoningbank"]


@pytest.mark.parametrize("format", ["jsonl", "chat", "atif"])
def test_nothing_is_written_over_and_nothing_is_left_half(full, tmp_path, format):
    target = tmp_path / "there"
    target.write_text("mine")
    with pytest.raises(BankError, match="is there already"):
        export(full, target, format)
    assert target.read_text() == "mine"
    with pytest.raises(BankError, match="cannot be written"):
        export(full, target / "below", format)
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".part")] == []


def test_odd_paths_are_one_line(empty, tmp_path):
    (tmp_path / "nothing.txt").write_text("hello")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "none", tmp_path / "pipe", "a\0b", tmp_path / "nothing.txt", tmp_path / "folder"):
        with pytest.raises(BankError) as caught:
            load(empty, path)
        assert "\n" not in str(caught.value)


def test_a_bank_opened_to_read_is_exported_and_imports_nothing(full, tmp_path):
    export(full, tmp_path / "bank.jsonl", "jsonl")
    path = tmp_path / "full.db"
    with Bank.open(path, "r") as bank:
        export(bank, tmp_path / "again.jsonl", "jsonl")
        with pytest.raises(BankError, match="opened to read"):
            load(bank, tmp_path / "bank.jsonl")
