"""`opcd play`, `opcd bank` and `opcd envs` from the outside, with a script in place of the person."""

import json

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

import envs
from experience_bank import Bank
from opcd_agents.pocket.houses import Goal, solve
from opcd_agents.types import Split


def _last_json(text):
    return json.loads(text.splitlines()[-1])


def _tests_of(spec):
    return [task for task in envs.tasks(spec) if task.split is Split.TEST]


def _answer(task):
    kwargs = task.kwargs
    return (kwargs["p"] * kwargs["a"] + kwargs["q"] * kwargs["b"]) % 10


def test_a_person_wins(opcd):
    task = _tests_of("operator:3#4")[1]
    done = opcd("play", "operator:3#4", "--task", 1, "--json", stdin=f"{_answer(task)}\n")
    result = _last_json(done.out)
    assert done.code == 0
    assert "won after 1 turn; the optimum is 1" in done.out
    assert (result["outcome"], result["turns"], result["model"]) == ("won", 1, "human")
    assert result["fingerprint"] == task.fingerprint


def test_a_person_asks_what_can_be_done_and_loses(opcd):
    task = _tests_of("operator:3#4")[0]
    wrong = (_answer(task) + 1) % 10
    done = opcd("play", "operator:3#4", "--json", stdin=f"?\n\n{wrong}\n{wrong}\n")
    assert "0, 1, 2, 3" in done.out
    assert _last_json(done.out)["outcome"] == "lost"
    assert _last_json(done.out)["turns"] == 2


@pytest.mark.parametrize("stdin", ["quit\n", "", "help\nexit\n"])
def test_a_person_leaves(opcd, tmp_path, stdin):
    bank = tmp_path / "bank.db"
    done = opcd("play", "operator:3#4", "--record", "--bank", bank, stdin=stdin)
    assert done.code == 0
    assert "left; nothing was kept" in done.err
    assert not bank.exists()


def test_an_interrupt_leaves_a_person_cleanly_and_ends_a_watch_with_130(opcd, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("cli.play.ask", interrupt)
    assert opcd("play", "operator:3#4").code == 0
    monkeypatch.setattr("opcd_agents.rollout.play", interrupt)
    done = opcd("play", "operator:3#4", "--random")
    assert done.code == 130
    assert done.err.splitlines()[-1].startswith("opcd: interrupted")


def test_a_recorded_episode_is_in_the_bank(opcd, tmp_path):
    bank = tmp_path / "bank.db"
    done = opcd("play", "operator:3#4", "--random", "--record", "--bank", bank, "--seed", 5, "--json")
    key = _last_json(done.out)["episode"]
    with Bank.open(bank, "r") as opened:
        [(stored, episode)] = opened.episodes(role="random")
    assert stored == key
    assert episode.provenance.seed == _last_json(done.out)["seed"]
    listed = _last_json(opcd("bank", "ls", "--bank", bank, "--json").out)
    assert listed["counts"]["episodes"] == 1
    assert listed["episodes"][0]["id"] == key
    shown = opcd("bank", "show", key[:15], "--bank", bank)
    assert episode.turns[0].observation in shown.out
    assert _last_json(opcd("bank", "show", key, "--bank", bank, "--json").out)["kind"] == "episode"
    assert opcd("bank", "show", "zzz", "--bank", bank).code == 2


def test_the_same_seed_plays_the_same(opcd):
    runs = [opcd("play", "operator:3#4", "--random", "--seed", 5).out for _ in range(2)]
    assert runs[0] == runs[1]


@pytest.fixture
def tokenizer(tmp_path):
    core = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    folder = tmp_path / "words"
    folder.mkdir()
    core.save(str(folder / "tokenizer.json"))
    return folder


def test_a_house_from_play_to_notes(opcd, tmp_path, tokenizer):
    from envs.house_data import house_plan

    bank = tmp_path / "bank.db"
    task = next(task for task in envs.tasks("house:0") if task.split is Split.TRAIN)
    state = house_plan(0).start(task.kwargs["start"])
    commands = solve(state, Goal(**task.kwargs["goal"]))
    args = ["play", "house:0", "--split", "train", "--record", "--bank", bank, "--json"]
    won = _last_json(opcd(*args, stdin="\n".join(commands) + "\n").out)
    assert (won["outcome"], won["turns"]) == ("won", task.optimal)

    made = opcd("bank", "context", "house/0", "--bank", bank, "--model", tokenizer, "--budget", 200)
    assert made.code == 0
    assert "Notes: " in made.out
    lessons = _last_json(opcd("bank", "ls", "lessons", "--bank", bank, "--json").out)["lessons"]
    assert lessons
    lesson = opcd("bank", "show", lessons[0]["id"], "--bank", bank)
    assert f"-- episode {won['episode']}, turn" in lesson.out
    contexts = _last_json(opcd("bank", "ls", "contexts", "--bank", bank, "--json").out)["contexts"]
    assert [c["version"] for c in contexts] == [1]
    assert opcd("bank", "context", "house/1", "--bank", bank, "--model", tokenizer).code == 2

    noted = opcd("play", "house:0", "--context", "house/0", "--bank", bank, stdin="quit\n")
    assert noted.out.startswith("Notes: ")
    unknown = opcd("play", "house:0", "--context", "hose/0", "--bank", bank, stdin="quit\n")
    assert unknown.code == 2
    assert "'house/0'" in unknown.err


def test_envs_shows_counts_and_no_overlap(opcd):
    summary = _last_json(opcd("envs", "show", "operator:3#4", "--json").out)
    assert sum(side["tasks"] for side in summary["splits"]) == 100
    assert summary["overlap"] == 0
    shown = opcd("envs", "show", "operator:3#4").out
    assert "overlap of fingerprints between splits: 0" in shown
    assert opcd("envs").out.splitlines()[1].startswith("house")


def test_a_model_is_watched(opcd, tmp_path):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from opcd_agents.pocket.tokens import train_tokenizer

    words = train_tokenizer(["What is 2 # 5 ?", "> 6", "wrong"] * 6)
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    LlamaForCausalLM(shape).save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    bank = tmp_path / "bank.db"
    done = opcd("play", "operator:3#4", "--model", tmp_path, "--record", "--bank", bank, "--json")
    assert done.code == 0
    assert _last_json(done.out)["outcome"] in ("won", "lost")
    assert "\x1b" not in done.out
    with Bank.open(bank, "r") as opened:
        [(_, episode)] = opened.episodes(role="student")
    assert episode.turns[0].sampled_ids


def test_a_solution_can_be_watched_and_is_no_experience(opcd, tmp_path):
    done = opcd("play", "sokoban:6", "--solution", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out.splitlines()[-1])["outcome"] == "won"
    kept = opcd("play", "sokoban:6", "--solution", "--record", "--bank", tmp_path / "b.db")
    assert kept.code == 2
    assert not (tmp_path / "b.db").exists()
    assert opcd("play", "sokoban:6", "--solution", "--random").code == 2


def test_anchors_are_shown(opcd):
    done = opcd("envs", "show", "frozen-lake:4,holes=3", "--json")
    assert done.code == 0, done.err
    anchors = json.loads(done.out.splitlines()[-1])["anchors"]
    assert anchors["known solution"]["rate"] == 1
    assert anchors["uniform random"]["rate"] < anchors["best blind sequence"]["rate"] < 1
