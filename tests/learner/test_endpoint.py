"""A teacher behind HTTP: a small real server answers as vLLM does, with the numbers of a tiny model."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from opcd_agents.errors import ModelError
from opcd_agents.learner.endpoint import Endpoint
from opcd_agents.learner.fused import fused
from opcd_agents.learner.learner import Learner, Settings
from opcd_agents.learner.objectives import Divergence, SampledKL
from opcd_agents.learner.saying import Heard
from opcd_agents.pocket.tokens import train_tokenizer
from opcd_agents.policies.loading import head_of
from opcd_agents.types import Example

from .conftest import TEXTS, tiny
from .test_teachers import EVERY, ROWS, logprobs, student_states

SAID = torch.tensor([i for row in ROWS for i in row.said])


def scored(network, ids, k, decode):
    """`prompt_logprobs` of one row: none for the first id, then the given one and the k likeliest."""
    with torch.no_grad():
        logs = torch.log_softmax(network(torch.tensor([ids])).logits[0], -1)
    told: list[dict[str, dict[str, object]] | None] = [None]
    for position, given in enumerate(ids[1:]):
        listed = {given, *logs[position].topk(k).indices.tolist()} if k else {given}
        told.append(
            {str(i): {"logprob": float(logs[position, i]), "rank": 1, "decoded_token": decode(i)} for i in listed}
        )
    return told


class Served(ThreadingHTTPServer):
    """The server: whose numbers it tells, and what is wrong with it."""

    fault = ""

    def __init__(self, network, tokenizer):
        super().__init__(("127.0.0.1", 0), Handler)
        self.network = network
        self.decode = lambda i: tokenizer.decode([i])  # as vLLM does
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer({"data": [{"id": "tiny"}]})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        assert isinstance(server, Served)
        if server.fault == "refuses":
            self.answer(
                {"error": {"message": "Requested prompt logprobs of 9, which is greater than max allowed: 5"}}, 400
            )
            return
        k = asked["prompt_logprobs"]
        choices: list[dict] = [
            {"index": i, "prompt_logprobs": scored(server.network, ids, k, server.decode)}
            for i, ids in enumerate(asked["prompt"])
        ]
        if server.fault == "plain":
            choices = [{"index": 0, "text": "hello"}]
        if server.fault == "short":
            choices[0]["prompt_logprobs"].pop()
        if server.fault == "others":
            choices[0]["prompt_logprobs"][1] = {"7": {"logprob": -1.0}}
        if server.fault == "words":
            choices[0]["prompt_logprobs"][1] = {"seven": {"logprob": -1.0}}
        if server.fault == "nan":
            next(iter(choices[0]["prompt_logprobs"][1].values()))["logprob"] = float("nan")
        if server.fault == "few":
            told, given = choices[0]["prompt_logprobs"], str(asked["prompt"][0][-1])
            others = [name for name in told[-1] if name != given]
            told[-1] = {name: told[-1][name] for name in (given, *others[: k - 2])}
        self.answer({"choices": choices[::-1]})

    def answer(self, body, code=200):
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format, *args):
        pass


@pytest.fixture
def server(network, tokenizer):
    with Served(network, tokenizer) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def loss(objective, student, saying):
    hidden = student_states(student, ROWS).detach()
    return fused(objective, hidden, head_of(student).weight, saying, SAID, torch.ones(len(SAID))).losses


@pytest.mark.parametrize(
    ("objective", "k"), [(SampledKL(), 0), (Divergence(support="teacher", k=9), 9), (Divergence(0.0, "teacher", 5), 5)]
)
def test_it_teaches_what_the_model_behind_it_would(server, network, renderer, objective, k):
    student = tiny(network.config.vocab_size, seed=4)
    told = Endpoint(server.url, renderer, network.config.vocab_size, k)(ROWS)
    with torch.no_grad():
        local = Heard.of(student_states(network, ROWS), head_of(network).weight)
    torch.testing.assert_close(loss(objective, student, told), loss(objective, student, local), atol=2e-4, rtol=1e-3)


def test_what_is_not_told_is_not_told_of_either(server, network, renderer):
    """No entropy and no mass are made up from a few log-probabilities."""
    teacher, objective = (
        Endpoint(server.url, renderer, network.config.vocab_size, 3),
        Divergence(support="teacher", k=3),
    )
    student = tiny(network.config.vocab_size, seed=4)
    metrics = Learner(student, teacher, objective, Settings(lr=0.0, top=3)).update([Example(r, r) for r in ROWS])
    assert {"student_entropy", "student_mass", "said", "kl_by_turn"} < metrics.diagnostics.keys()
    assert not {"teacher_entropy", "teacher_mass"} & metrics.diagnostics.keys()


def test_what_is_not_told_is_spread_evenly(server, network, renderer):
    told = Endpoint(server.url, renderer, network.config.vocab_size, 3)(ROWS).logits(EVERY)
    torch.testing.assert_close(told.logsumexp(-1), torch.zeros(len(told)), atol=1e-4, rtol=0)
    exact = logprobs(network)
    assert torch.equal(told.topk(3).indices, exact.topk(3).indices)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("refuses", "refused: 400 .*greater than max allowed"),
        ("plain", r"an answer for each|prompt_logprobs for \d+ given ids"),
        ("short", r"prompt_logprobs for \d+ given ids"),
        ("few", "wanted 3 log-probabilities a position .* got 2; lower top_k"),
        ("others", "another tokenizer"),
        ("words", "log-probabilities by id"),
        ("nan", "wanted log-probabilities from"),
    ],
)
def test_one_that_cannot_is_refused_with_the_reason(server, network, renderer, fault, says):
    server.fault = fault
    with pytest.raises(ModelError, match=says):
        Endpoint(server.url, renderer, network.config.vocab_size, 3)


def test_answers_that_get_shorter_during_a_run_are_refused(server, network, renderer):
    teacher = Endpoint(server.url, renderer, network.config.vocab_size, 3)
    server.fault = "few"
    with pytest.raises(ModelError, match="got 2; lower top_k"):
        teacher(ROWS)


@pytest.mark.parametrize(
    ("decode", "says"),
    [
        (lambda other: lambda i: other.decode([i]), "wanted an endpoint with the student's tokenizer"),
        (lambda other: lambda i: None, "does not say what ids stand for"),
    ],
)
def test_one_with_another_tokenizer_is_refused(server, network, renderer, decode, says):
    """Of the same size: only what its ids stand for tells them apart."""
    other = train_tokenizer([text[::-1] for text in TEXTS], 400)
    server.decode = decode(other)
    with pytest.raises(ModelError, match=says):
        Endpoint(server.url, renderer, network.config.vocab_size, 3)


def test_one_that_tells_pieces_of_the_vocabulary_is_taken(server, network, tokenizer, renderer):
    server.decode = tokenizer.convert_ids_to_tokens
    Endpoint(server.url, renderer, network.config.vocab_size, 3)


def test_nobody_there(network, renderer):
    with pytest.raises(ModelError, match="wanted an answer of"):
        Endpoint("http://127.0.0.1:9/v1", renderer, network.config.vocab_size, 0)
