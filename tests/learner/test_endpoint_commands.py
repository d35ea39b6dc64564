"""The commands with a model behind HTTP: it collects, writes lessons and is validated; what needs weights says so."""

import json
from pathlib import Path

import pytest

from cli import models
from experience_bank import Bank

from .serving import serving

WEIGHTS = Path(models.resolve("pocket"))


@pytest.fixture(params=["vllm", "plain"])
def server(request):
    yield from serving(models.policy("pocket"), request.param, str(WEIGHTS))


def last(done):
    assert done.code == 0, done.err
    return json.loads(done.out.splitlines()[-1])


def test_a_server_collects_into_a_bank_and_writes_lessons(opcd, tmp_path, server):
    bank = tmp_path / "bank.db"
    told = last(opcd("collect", "operator:3#4", "--model", server.url, "--bank", bank, "--episodes", 6, "--json"))
    assert (told["episodes"], told["failed"]) == (6, 0)
    with Bank.open(bank, "r") as opened:
        episodes = [episode for _, episode in opened.episodes()]
        assert {e.provenance.model for e in episodes} == {f"{server.url}#tiny"}
        assert all(bool(turn.sampled_ids) == (server.kind == "vllm") for e in episodes for turn in e.turns)
    assert opcd("bank", "extract", "operator/3-4", "--bank", bank).code == 2  # no such scope
    before = len(server.asked)
    done = opcd("bank", "extract", "operator/3#4", "--writer", server.url, "--bank", bank, "--json")
    assert done.code in (0, 4), done.err  # the pocket model is no writer: what it says comes back as failed
    assert len(server.asked) > before


def test_notes_are_measured_in_the_tokens_of_the_model_behind_the_server(server):
    text = "2 # 5 is the last digit."
    by_ids = models.token_counter("pocket")(text)
    assert models.token_counter(server.url)(text) == by_ids


def test_what_needs_weights_says_so(opcd, tmp_path, server):
    done = opcd("rounds", "operator:3#4", "--model", server.url, "--out", tmp_path / "run")
    assert done.code == 2
    assert "weights are here" in done.err


def test_somebody_who_is_not_there_is_one_line(opcd, tmp_path):
    done = opcd("play", "operator:3#4", "--model", "http://127.0.0.1:9/v1")
    assert done.code == 1
    assert "wanted an answer" in done.err
    assert "Traceback" not in done.err


def test_a_model_behind_a_server_writes_lessons_and_is_validated_with_them(opcd, tmp_path):
    bank, note = tmp_path / "bank.db", tmp_path / "note.txt"
    note.write_text("Notes: a # b is the last digit of 3 a plus 4 b.")
    for server in serving(models.policy("pocket"), "plain", str(WEIGHTS)):
        assert opcd("collect", "operator:3#4", "--model", server.url, "--bank", bank, "--episodes", 4).code == 0
        server.says = "- EXPERIENCE ITEM: Think of the last digit alone. [turns 0]"
        told = last(opcd("bank", "extract", "operator/3#4", "--writer", server.url, "--bank", bank, "--json"))
        assert told["failed"] == []
        with Bank.open(bank, "r") as opened:
            written = [one for _, one in opened.lessons() if "last digit alone" in one.statement]
        assert written
        assert all(one.evidence for one in written)
        server.faults = ["", "", *["400"] * 4]  # what is tried first, and the model's list
        told = last(opcd("bank", "extract", "operator/3#4", "--writer", server.url, "--bank", bank, "--json"))
        assert any("refused: 400" in one for one in told["failed"])
        server.says, server.faults = "", []
        assert opcd("bank", "context", "operator/3#4", "--text", note, "--bank", bank).code == 0
        found = last(
            opcd("bank", "validate", "operator:3#4", "--model", server.url, "--episodes", 8, "--bank", bank, "--json")
        )
        assert found["contexts"][0]["with"].endswith("/8")
        shown = opcd("play", "operator:3#4", "--model", server.url, "--context", "operator/3#4", "--bank", bank)
        assert shown.code == 0, shown.err
