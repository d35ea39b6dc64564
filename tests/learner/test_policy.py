"""The policy says what the model would: kept states equal re-encoded ones, ids and log-probs are as sampled."""

import copy
import math
from collections import Counter

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from opcd_agents.errors import ModelError
from opcd_agents.policies import huggingface
from opcd_agents.policies.cache import RowCache, pad_rows
from opcd_agents.policies.huggingface import HuggingFacePolicy
from opcd_agents.rollout import answers
from opcd_agents.types import Tokens, Turn


def converse(policy, context, seeds, heard, stop=None):
    """Play `heard` (a list of observations per slot) and return the turns of each slot."""
    session = policy.begin(context, seeds)
    turns = {slot: [] for slot in range(len(seeds))}
    for t in range(max(map(len, heard))):
        asked = {s: (heard[s][t], {}) for s in range(len(seeds)) if t < len(heard[s])}
        for slot, reply in answers(session, asked).items():
            turns[slot].append(
                Turn(asked[slot][0], reply.text, reply.text, 0.0, reply.prompt_ids, reply.sampled_ids, reply.logprobs)
            )
    return turns


HEARD = [
    ["You are in the Hall.", "no", "the coin and take it."],
    ["Find"],
    ["Find the coin and take it.", "You", "in the Hall"],
]


def test_logprobs_are_those_of_the_whole_row(network, renderer):
    policy = HuggingFacePolicy(network, renderer, "tiny", longest=9)
    for context in (None, "Notes: coin crate. crate Hall. Notes: coin crate. crate Hall."):
        turns = converse(policy, context, [1, 2, 3], HEARD)
        for mine in turns.values():
            row = Tokens.of(mine)
            with torch.no_grad():
                scores = torch.log_softmax(network(torch.tensor([row.ids])).logits[0].float(), -1)
            expected = [float(scores[i - 1, row.ids[i]]) for i, said in enumerate(row.sampled) if said]
            np.testing.assert_allclose([x for t in mine for x in t.logprobs], expected, atol=2e-4)


def test_replies_that_end_early_leave_the_others_as_they_are(network, renderer):
    """Rows trade places when they end; what each says, now and later, is what it says alone."""
    heard = [HEARD[i % 3] for i in range(12)]
    policy = HuggingFacePolicy(network, copy.copy(renderer), "tiny", longest=9)
    drawn = Counter(
        i for turns in converse(policy, None, range(12), heard).values() for t in turns for i in t.sampled_ids
    )
    policy.renderer.end_id = drawn.most_common(1)[0][0]
    together = converse(policy, None, range(12), heard)
    assert len({len(turns[0].sampled_ids) for turns in together.values()}) > 3
    for slot, turns in together.items():
        alone = converse(policy, None, [slot], [heard[slot]])[0]
        assert [t.sampled_ids for t in alone] == [t.sampled_ids for t in turns]
        row = Tokens.of(turns)
        with torch.no_grad():
            scores = torch.log_softmax(network(torch.tensor([row.ids])).logits[0].float(), -1)
        expected = [float(scores[i - 1, row.ids[i]]) for i, said in enumerate(row.sampled) if said]
        np.testing.assert_allclose([x for t in turns for x in t.logprobs], expected, atol=2e-4)


def test_an_episode_does_not_depend_on_its_neighbours(network, renderer):
    policy = HuggingFacePolicy(network, renderer, "tiny", longest=9)
    together = converse(policy, None, [1, 2, 3], HEARD)
    for slot, seed in enumerate([1, 2, 3]):
        alone = converse(policy, None, [seed], [HEARD[slot]])
        assert [t.sampled_ids for t in alone[0]] == [t.sampled_ids for t in together[slot]]


@pytest.mark.parametrize("context", [None, "Notes: coin crate. crate Hall. Notes: coin crate. crate Hall."])
@pytest.mark.parametrize("slots", [1, 2, 3, 5])
def test_a_row_that_begins_beside_others_says_the_same(network, renderer, slots, context):
    """Slots that end are refilled at once; the ids are those of all rows played side by side."""
    policy = HuggingFacePolicy(network, renderer, "tiny", longest=9)
    heard = [HEARD[i % 3] for i in range(7)]
    together = converse(policy, context, range(7), heard)
    session = policy.begin(context, range(7))
    turns = {slot: [] for slot in range(7)}
    while running := [s for s in range(7) if len(turns[s]) < len(heard[s])][:slots]:
        for slot, reply in answers(session, {s: (heard[s][len(turns[s])], {}) for s in running}).items():
            turns[slot].append(reply)
    for slot, replies in turns.items():
        assert [r.sampled_ids for r in replies] == [t.sampled_ids for t in together[slot]]
        for reply, turn in zip(replies, together[slot], strict=True):
            assert reply.prompt_ids == turn.prompt_ids
            np.testing.assert_allclose(reply.logprobs, turn.logprobs, atol=2e-4)


@pytest.mark.parametrize("patience", [0.1, 1])
def test_nobody_waits_for_the_slowest(network, renderer, monkeypatch, patience):
    """Replies come back while others are under way; what each says is what it says where all wait for all."""
    heard = [HEARD[i % 3] for i in range(12)]
    policy = HuggingFacePolicy(network, copy.copy(renderer), "tiny", longest=9)
    drawn = Counter(
        i for turns in converse(policy, None, range(12), heard).values() for t in turns for i in t.sampled_ids
    )
    policy.renderer.end_id = drawn.most_common(1)[0][0]
    monkeypatch.setattr(huggingface, "_PATIENCE", math.inf)
    together = converse(policy, None, range(12), heard)
    monkeypatch.setattr(huggingface, "_PATIENCE", patience)
    session, turns = policy.begin(None, range(12)), {slot: [] for slot in range(12)}
    owed, parts = set(), 0
    while waiting := {slot for slot in turns if len(turns[slot]) < len(heard[slot])}:
        replies = session.reply({slot: (heard[slot][len(turns[slot])], {}) for slot in sorted(waiting - owed)[:8]})
        assert replies
        owed = {saying.slot for saying in session._sayings[: session._running]}
        parts += bool(owed)
        for slot, reply in replies.items():
            turns[slot].append(reply)
    assert parts > 3
    for slot, replies in turns.items():
        assert [r.sampled_ids for r in replies] == [t.sampled_ids for t in together[slot]]
        for reply, turn in zip(replies, together[slot], strict=True):
            np.testing.assert_allclose(reply.logprobs, turn.logprobs, atol=2e-4)


def test_what_rows_share_is_encoded_once(network, renderer, monkeypatch):
    """However few play side by side: the context is not read again for each episode."""
    fed = []
    extend = RowCache.extend
    monkeypatch.setattr(
        RowCache, "extend", lambda self, ids, *rest: fed.append(ids.numel()) or extend(self, ids, *rest)
    )
    policy = HuggingFacePolicy(network, renderer, "tiny", longest=1)
    context = "Notes: coin crate. crate Hall. " * 8
    long = len(renderer.opening(context, "Find"))
    session = policy.begin(context, range(6))
    for slot in range(6):
        session.reply({slot: ("Find" if slot else "You are", {})})
    assert sum(fed) < 2 * long


def test_greedy_takes_the_likeliest(network, renderer):
    policy = HuggingFacePolicy(network, renderer, "tiny", temperature=0, longest=5)
    (turn,) = converse(policy, None, [0], [["Find"]])[0]
    ids = list(turn.prompt_ids)
    for said in turn.sampled_ids:
        with torch.no_grad():
            assert said == int(network(torch.tensor([ids])).logits[0, -1].argmax())
        ids.append(said)


def test_sampling_is_exact(network, renderer):
    """Chi-square of 4,000 first ids against the model's own distribution."""
    policy = HuggingFacePolicy(network, renderer, "tiny", longest=1)
    n = 4000
    drawn = [r.sampled_ids[0] for r in policy.begin(None, range(n)).reply({i: ("You", {}) for i in range(n)}).values()]
    with torch.no_grad():
        p = torch.softmax(network(torch.tensor([renderer.opening(None, "You")])).logits[0, -1].double(), -1).numpy()
    counts = np.bincount(drawn, minlength=len(p))
    common = p * n >= 5
    chi2 = ((counts[common] - n * p[common]) ** 2 / (n * p[common])).sum()
    assert chi2 / common.sum() < 1.5


def test_cache_equals_one_pass(network):
    rows = [[5, 6, 7, 8, 9, 10, 11], [12, 13, 14], [15, 16, 17, 18]]
    cache = RowCache(network.get_decoder(), 3)
    with torch.no_grad():
        cache.extend(*pad_rows([r[:2] for r in rows], network.device))
        cache.keep([2, 0])
        kept = [rows[2], rows[0]]
        states = cache.extend(*pad_rows([r[2:] for r in kept], network.device))
        for i, row in enumerate(kept):
            whole = network.get_decoder()(torch.tensor([row])).last_hidden_state[0, 2:]
            torch.testing.assert_close(states[i, : len(whole)], whole, atol=1e-4, rtol=1e-4)
    assert cache.lengths.tolist() == [4, 7]


def test_rows_end_where_the_positions_of_the_model_do():
    """Padding beside a row that is nearly full is no id of it; one id too many is told, for a table of positions has no row for it."""
    torch.manual_seed(0)
    network = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=16, n_embd=16, n_layer=1, n_head=2)).eval()
    decoder = network.get_decoder()
    rows = [list(range(16)), list(range(20, 32))]
    cache = RowCache(decoder, 2)
    with torch.inference_mode():
        cache.append([rows[0][:14], rows[1][:2]])
        hidden = cache.append([rows[0][14:], rows[1][2:]])
        for row, last in zip(rows, hidden, strict=True):
            torch.testing.assert_close(last, decoder(torch.tensor([row])).last_hidden_state[0, -1])
        with pytest.raises(
            ModelError, match="wanted rows of at most 16 ids, the positions of the model, got one of 17"
        ):
            cache.append([[1], [2]])
