"""The whole loop from the outside, with the embedded pocket model on a real house, on a tiny budget."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli import models
from experience_bank import Bank

RECIPE = """
updates = 4
episodes = 4
anchors = 2
validate = 2
validation_episodes = 4
preflight = 8
"""
SCORES = ("before", "with_context", "after", "random", "blind", "optimal")


def command(*args):
    return [sys.executable, "-m", "opcd_agents", *map(str, args)]


def last_json(text):
    return json.loads(text.splitlines()[-1])


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    """A bank that two collectors filled at the same time."""
    path = tmp_path_factory.mktemp("loop") / "bank.db"
    one = ("collect", "house:5", "--episodes", 24, "--bank", path, "--seed")
    running = [subprocess.Popen(command(*one, seed), stderr=subprocess.PIPE) for seed in (1, 2)]
    for process in running:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    return path


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE)
    return path


def test_two_collectors_keep_all_their_episodes(opcd, bank):
    assert len(last_json(opcd("bank", "ls", "--bank", bank, "--json").out)["episodes"]) == 48


def test_the_loop(opcd, bank, recipe, tmp_path):
    out = tmp_path / "run"
    made = opcd("bank", "context", "house/5", "--bank", bank, "--json")
    assert made.code == 0, made.err
    trained = opcd(
        "distill", "house:5", "--context", "house/5", "--bank", bank, "--out", out, "--recipe", recipe, "--json"
    )
    assert trained.code == 0, trained.err
    assert last_json(trained.out)["updates"] == 4
    assert "on 8 validation episodes each: " in trained.err
    before, *lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert before["with_context"] > before["without_context"]
    assert {"kl_by_turn", "kl_by_class", "student_entropy", "cut", "hedges"} <= set(lines[-1])
    assert (out / "model" / "model.safetensors").is_file()
    assert "Notes:" in (out / "model" / "README.md").read_text()
    scored = opcd(
        "eval", "house:5", "--context", "house/5", "--bank", bank, "--after", out / "model", "--episodes", 8, "--json"
    )
    assert scored.code == 0, scored.err
    result = last_json(scored.out)
    for name in SCORES:
        one = result[name]
        assert set(one) == {"wins", "episodes", "rate", "low", "high"}
        assert 0 <= one["low"] <= one["rate"] <= one["high"] <= 1
    assert set(result["retained"]) == {"before", "after"}
    assert set(result["gap_closed"]) == {"value", "low", "high"}
    assert result["optimal"]["rate"] == 1
    assert result["with_context"]["rate"] > result["before"]["rate"]  # the pocket model reads its notes


def test_an_adapter_is_trained_and_played_with(opcd, bank, recipe, tmp_path):
    assert opcd("bank", "context", "house/5", "--bank", bank).code == 0
    recipe.write_text(RECIPE.replace("anchors = 2", "anchors = 0") + 'lora_rank = 2\nkeep = "last"\nweights = "all"\n')
    out = tmp_path / "run"
    done = opcd("distill", "house:5", "--context", "house/5", "--bank", bank, "--out", out, "--recipe", recipe)
    assert done.code == 0, done.err
    assert (out / "model" / "adapter_model.safetensors").is_file()
    assert not (out / "model" / "model.safetensors").exists()
    assert opcd("play", "house:5", "--model", out / "model").code == 0


def test_a_run_with_a_model_beside_it_goes_on_from_elsewhere(opcd, tmp_path, monkeypatch):
    """What a run and an adapter keep of `./mine` holds wherever they are read from."""
    shutil.copytree(models.resolve("pocket"), tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    Path("r.toml").write_text(
        "updates = 1\nepisodes = 2\nanchors = 0\nhold_target = 0.0\npreflight = 0\nvalidate = 0\nlora_rank = 1\n"
    )
    Path("text").write_text("Notes: a # b is the last digit of 1 a plus 6 b.")
    assert opcd("bank", "context", "operator/1#6", "--text", "text").code == 0
    done = opcd("distill", "operator:1#6", "--model", "./mine", "--recipe", "r.toml", "--out", "run")
    assert done.code == 0, done.err
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    again = opcd("distill", "--resume", tmp_path / "run")
    assert again.code == 0, again.err
    played = opcd("play", "operator:1#6", "--model", tmp_path / "run" / "model")
    assert played.code == 0, played.err


def test_rounds_learn_from_what_came_before_and_go_on(opcd, recipe, tmp_path):
    recipe.write_text(RECIPE.replace("updates = 4", "updates = 2") + 'rollouts = "replay"\n')
    args = ("rounds", "house:5", "--episodes", 12, "--test", 4, "--recipe", recipe, "--out", tmp_path / "r", "--json")
    first = opcd(*args, "--rounds", 1)
    assert first.code == 0, first.err
    second = opcd(*args, "--rounds", 2)
    assert second.code == 0, second.err
    assert "round 1: collect" not in second.err
    told = last_json(second.out)
    assert [row["round"] for row in told["rounds"]] == [0, 1, 2]
    assert told["rounds"][:2] == last_json(first.out)["rounds"]
    assert second.err.count("on 8 validation episodes each") == 1  # what there was to gain is measured in each round
    measured = json.loads((tmp_path / "r" / "round-2" / "metrics.jsonl").read_text().splitlines()[0])
    assert measured.keys() == {"update", "without_context", "with_context"}
    with Bank.open(tmp_path / "r" / "bank.db", "r") as opened:
        assert opened.counts()["episodes"] == 24
    (other := tmp_path / "other.toml").write_text(RECIPE)
    for key, asked in (("tasks", ("rounds", "house:6", *args[2:])), ("recipe", (*args, "--recipe", other)), ("seed", (*args, "--seed", 1)),
                       ("weights", (*args, "--model", tmp_path / "r" / "round-1" / "model"))):  # fmt: skip
        refused = opcd(*asked, "--rounds", 1)
        assert (refused.code, f"was begun with another {key}" in refused.err) == (1, True), refused.err
        assert "score" not in refused.err


def test_an_interrupted_run_is_resumed(opcd, bank, recipe, tmp_path):
    assert opcd("bank", "context", "house/5", "--bank", bank).code == 0
    out = tmp_path / "run"
    recipe.write_text(RECIPE.replace("updates = 4", "updates = 30"))  # long enough to be stopped in
    args = ("distill", "house:5", "--context", "house/5", "--bank", bank, "--out", out, "--recipe", recipe)
    process = subprocess.Popen(command(*args), stderr=subprocess.PIPE, text=True)
    metrics = out / "metrics.jsonl"
    deadline = time.monotonic() + 240
    while not (metrics.is_file() and metrics.read_text().count("\n") >= 2) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "interrupted" in errors
    assert "Traceback" not in errors
    again = opcd("distill", "--resume", out)
    assert again.code == 0, again.err
    assert [json.loads(line)["update"] for line in metrics.read_text().splitlines()] == list(range(31))


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("distill", "hose:5"), 2, ["family of tasks", "'hose'", "'house'"]),
        (("distill", "house:5", "--model", "poket"), 2, ["'poket'", "'pocket'"]),
        (("distill", "house:5", "--context", "nothing/9"), 2, ["'nothing/9'"]),
        (("distill",), 2, ["--resume"]),
        (("eval", "house:x"), 2, ["house:7"]),
        (("collect", "house:5", "--split", "training"), 2, ["'training'", "train"]),
        (("collect", "house:5", "--model", "./no-such-folder"), 2, ["no-such-folder"]),
    ],
)
def test_misuse_is_one_line(opcd, bank, tmp_path, args, code, words):
    done = opcd(*args, "--bank", bank, *(("--out", tmp_path / "run") if args[0] == "distill" else ()))
    assert done.code == code
    (line,) = done.err.strip().splitlines()
    assert all(word in line for word in words), line


def test_an_unknown_recipe_key_names_the_nearest(opcd, bank, tmp_path):
    recipe = tmp_path / "r.toml"
    recipe.write_text("update = 3\n")
    done = opcd("distill", "house:5", "--bank", bank, "--recipe", recipe, "--out", tmp_path / "run")
    assert (done.code, "'updates'" in done.err) == (2, True)


def test_a_model_folder_without_weights(opcd, bank, tmp_path):
    (tmp_path / "empty").mkdir()
    done = opcd("collect", "house:5", "--model", tmp_path / "empty", "--bank", bank)
    assert done.code == 1
    assert "weights" in done.err


def test_a_run_folder_that_cannot_be_written(opcd, bank, tmp_path):
    (tmp_path / "file").touch()
    made = opcd("bank", "context", "house/5", "--bank", bank)
    assert made.code == 0
    done = opcd("distill", "house:5", "--context", "house/5", "--bank", bank, "--out", Path(tmp_path / "file" / "run"))
    assert done.code == 1
    assert "run folder" in done.err
    assert os.path.basename(tmp_path) in done.err


def test_a_text_of_ones_own_becomes_a_context(opcd, tmp_path):
    rule = tmp_path / "rule.txt"
    rule.write_text("Notes: a @ b is the last digit of 7 a + 2 b.\n")
    args = ("bank", "context", "operator/7@2", "--bank", tmp_path / "new.db")
    made = opcd(*args, "--text", rule, "--json")
    assert made.code == 0, made.err
    assert last_json(made.out)["text"] == rule.read_text()
    assert opcd(*args, "--text", tmp_path / "none.txt").code == 2


def test_notes_on_another_world_are_refused(opcd, bank, tmp_path):
    assert opcd("bank", "context", "house/5", "--bank", bank).code == 0
    for args in (("distill", "house:1", "--out", tmp_path / "run"), ("eval", "house:1")):
        done = opcd(*args, "--bank", bank)
        assert done.code == 2
        assert "house/1" in done.err
        assert "house/5" in done.err
    assert not (tmp_path / "run").exists()


def test_a_failed_start_takes_no_run_folder(opcd, bank, tmp_path):
    (tmp_path / "empty").mkdir()
    args = ("distill", "house:5", "--context", "house/5", "--bank", bank, "--out", tmp_path / "run")
    assert opcd(*args, "--model", tmp_path / "empty").code == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("named", "code", "words"),
    [
        ('teacher = "froozen"', 2, "'froozen'"),
        ('teacher = "./no-such-folder"', 2, "no-such-folder"),
        ('teacher = "http://127.0.0.1:9/v1"\ndivergence = "sampled"', 1, "wanted an answer of"),
        ('contexts = "solution"', 2, "without one"),
        ('rollouts = "replay"', 2, "to replay"),
    ],
)
def test_what_is_missing_is_told_before_a_run_is_begun(opcd, tmp_path, named, code, words):
    recipe, text, bank = tmp_path / "r.toml", tmp_path / "text", tmp_path / "bank.db"
    recipe.write_text(named)
    text.write_text("Notes: a # b is the last digit of 1 a plus 6 b.")
    assert opcd("bank", "context", "operator/1#6", "--text", text, "--bank", bank).code == 0
    done = opcd("distill", "operator:1#6", "--bank", bank, "--recipe", recipe, "--out", tmp_path / "run")
    assert (done.code, words in done.err) == (code, True), done.err
    assert "measure" not in done.err
    assert not (tmp_path / "run").exists()


def test_rounds_that_are_stopped_before_they_learn_count_nothing_twice(opcd, recipe, tmp_path):
    """Few episodes of an operator teach no place, so the command ends where notes are to be made."""
    args = ("rounds", "operator:1#6", "--episodes", 6, "--test", 2, "--recipe", recipe, "--out", tmp_path / "r")
    for _ in range(2):
        assert "collect more" in opcd(*args).err
    with Bank.open(tmp_path / "r" / "bank.db", "r") as opened:
        assert opened.counts()["episodes"] == 6


@pytest.mark.parametrize(
    ("named", "words"), [('teacher = "./no-such-folder"', "no-such-folder"), ('contexts = "solution"', "without one")]
)
def test_rounds_tell_what_is_missing_before_anything_is_played(opcd, tmp_path, named, words):
    (recipe := tmp_path / "r.toml").write_text(named)
    done = opcd("rounds", "operator:1#6", "--recipe", recipe, "--out", tmp_path / "rounds")
    assert (done.code, words in done.err) == (2, True), done.err
    assert "score" not in done.err
    assert not (tmp_path / "rounds").exists()


WHOLE = {"tasks": "house:5", "model": "pocket", "weights": "", "seed": 0, "recipe": {}, "track": [], "contexts": []}
STORED = [{"replayed": ["x"]}, {"anchored": "x", "bank": "b.db"}, {"anchored": ["x"], "bank": 5}]


@pytest.mark.parametrize("config", ["{}", "[]", '{"model": "pocket"}', *(json.dumps(WHOLE | one) for one in STORED)])
def test_a_damaged_run_cannot_be_resumed(opcd, tmp_path, config):
    (tmp_path / "config.json").write_text(config)
    done = opcd("distill", "--resume", tmp_path)
    assert done.code == 1
    assert "damaged" in done.err


def test_another_teacher_does_not_resume_a_run(opcd, tmp_path):
    config = {"tasks": "house:5", "model": "pocket", "weights": "0" * 16, "seed": 0, "recipe": {}, "track": []}
    notes = {"id": "c", "scope": "house/5", "text": "Notes: coin crate."}
    (tmp_path / "config.json").write_text(json.dumps(config | {"contexts": [notes]}))
    done = opcd("distill", "--resume", tmp_path)
    assert done.code == 1
    assert "began with" in done.err


def test_no_context_no_bank(opcd, tmp_path):
    assert opcd("collect", "house:5", "--context", "nope", "--bank", tmp_path / "new.db").code == 1
    assert not (tmp_path / "new.db").exists()


def test_a_stop_while_games_are_compiled_is_prompt(tmp_path):
    process = subprocess.Popen(
        command("collect", "house:4", "--bank", tmp_path / "b.db"),
        env={**os.environ, "OPCD_CACHE": str(tmp_path / "games")},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("games/*.lock")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert not list(tmp_path.glob("games/*.z8"))  # it did not wait for the first of them either


def test_a_terminal_that_cannot_show_a_letter_ends_no_command(tmp_path):
    text = tmp_path / "text"
    text.write_text("Ein Öl ☃.", encoding="utf-8")
    args = ("bank", "context", "operator/3#4", "--text", text, "--bank", tmp_path / "b.db")
    done = subprocess.run(
        command(*args),
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Ein ?l ?." in done.stdout


def test_a_run_that_goes_on_from_an_older_checkpoint_ends_with_4(opcd, tmp_path):
    recipe, bank, out = tmp_path / "r.toml", tmp_path / "bank.db", tmp_path / "run"
    recipe.write_text("updates = 1\nepisodes = 2\nanchors = 0\nvalidate = 0\nkeep = 'last'\npreflight = 0\n")
    assert opcd("collect", "operator:1#6", "--episodes", 2, "--bank", bank).code == 0
    note = tmp_path / "note.txt"
    note.write_text("Notes: a # b is the last digit of 1 a plus 6 b.")
    assert opcd("bank", "context", "operator/1#6", "--text", note, "--bank", bank).code == 0
    begun = opcd("distill", "operator:1#6", "--bank", bank, "--recipe", recipe, "--out", out)
    assert begun.code == 0, begun.err
    shutil.copytree(out / "checkpoint", out / "checkpoint.old")
    (out / "checkpoint" / "manifest.json").write_text("{")
    done = opcd("distill", "--resume", out, "--json")
    assert (done.code, bool(last_json(done.out)["fell_back"])) == (4, True)
    assert "older checkpoint" in done.err
