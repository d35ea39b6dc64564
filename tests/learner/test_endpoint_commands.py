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
