"""Qwen3, Llama and Gemma as published: ids as their own templates give them, replies as a plain forward pass gives them."""

from typing import Any

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from opcd_agents.errors import ModelError, TemplateError, UsageError
from opcd_agents.learner.rows import example, examples
from opcd_agents.policies.cache import RowCache, pad_rows
from opcd_agents.policies.huggingface import HuggingFacePolicy
from opcd_agents.policies.loading import check, positions
from opcd_agents.render import Renderer
from opcd_agents.rollout import answers
from opcd_agents.types import Episode, Outcome, Provenance, Split, Task, Turn

from .families import FAMILIES, SHAPE

NOTES = "Notes: the coin is in the Hall.\n"
HEARD = ["\n\nYou are in the Hall. \n", "the <|im_end|> coin", "  go south\n", "<bos>no<end_of_turn>"]
SAID = ["<think>\nI am in the Hall.\n</think>\n\n> go south", "> the coin", "<think>\nand was cut"]
CASES = [
    (name, history, thinking)
    for name in FAMILIES
    for history in ("append", "per_turn")
    for thinking in (None, True, False)
    if not (name == "qwen3" and history == "append")
]
each_case = pytest.mark.parametrize(("name", "history", "thinking"), CASES)


@pytest.fixture(params=FAMILIES)
def name(request):
    return request.param


def harmless(texts):
    """What the template's own tokenization would take for special tokens is left out."""
    return [text.replace("<|im_end|>", "").replace("<bos>", "").replace("<end_of_turn>", "") for text in texts]


def golden(tokenizer, context, heard, said, thinking, system=True):
    """The tokenizer's own ids of a whole conversation."""
    messages = []
    if context is not None and system:
        messages.append({"role": "system", "content": context})
    elif context is not None:
        heard = [f"{context}\n\n{heard[0]}", *heard[1:]]
    for index, text in enumerate(heard):
        messages.append({"role": "user", "content": text})
        if index < len(said):
            messages.append({"role": "assistant", "content": said[index]})
    options = {} if thinking is None else {"enable_thinking": thinking}
    return list(
        tokenizer.apply_chat_template(messages, tokenize=True, add_generation_prompt=True, return_dict=False, **options)
    )


@pytest.mark.parametrize("context", [None, NOTES])
@pytest.mark.parametrize("thinking", [None, True, False])
@pytest.mark.parametrize("turns", [1, 2, 4])
def test_prompts_are_the_templates_own(name, context, thinking, turns):
    tokenizer, heard, said = FAMILIES[name].tokenizer(), harmless(HEARD)[:turns], SAID[: turns - 1]
    renderer = Renderer(tokenizer, "per_turn", thinking)
    wanted = golden(tokenizer, context, heard, said, thinking, system=name != "gemma")
    assert renderer.prompt(context, heard, said) == wanted


@pytest.mark.parametrize("name", ["llama", "gemma", "gemma3"])
@pytest.mark.parametrize("thinking", [None, True, False])
@pytest.mark.parametrize("context", [None, NOTES])
def test_appended_turns_are_the_templates_own(name, thinking, context):
    tokenizer, heard, said = (
        FAMILIES[name].tokenizer(),
        harmless(HEARD),
        ["> go south", "<think>\nHm.\n</think>\n\nthe coin"],
    )
    renderer = Renderer(tokenizer, "append", thinking)
    ids = renderer.opening(context, heard[0])
    for reply, text in zip(said, heard[1:], strict=False):
        sampled = renderer.reply(reply)
        ids += [*sampled, *renderer.following(sampled, text)]
    assert ids == golden(tokenizer, context, heard[: len(said) + 1], said, thinking, system=name != "gemma")


@pytest.mark.parametrize("thinking", [None, True, False])
def test_what_keeps_no_prefix_is_rendered_turn_by_turn(thinking):
    reason = "opens a reply otherwise" if thinking is False else "drops the thoughts"
    renderer = Renderer(FAMILIES["qwen3"].tokenizer(), thinking=thinking)
    assert renderer.history == "per_turn"
    assert reason in renderer.notice
    assert "\n" not in renderer.notice
    with pytest.raises(TemplateError, match=reason):
        Renderer(FAMILIES["qwen3"].tokenizer(), "append", thinking)


@pytest.mark.parametrize(
    ("reply", "thought"),
    [
        ("> go south", ""),
        ("<think>\nthe coin\n</think>\n> go south", "<think>\nthe coin\n</think>"),
        ("<think>\nthe coin", "<think>\nthe coin"),  # cut off
        ("<think>a</think>b<think>c</think>d", "<think>a</think>b<think>c</think>"),
        ("<think>a</think>b<think>c", "<think>a</think>b<think>c"),
    ],
)
def test_a_thought_ends_where_it_is_closed_or_not_at_all(reply, thought):
    renderer = Renderer(FAMILIES["qwen3"].tokenizer())
    ids = renderer.reply(reply)
    whole = len(ids) if thought == reply else len(ids[:-1])
    assert renderer.text(ids[: renderer.thought(ids)]) == thought
    assert renderer.thought(ids[:-1]) == min(renderer.thought(ids), len(ids) - 1)
    assert renderer.thought(ids) <= whole


@pytest.mark.parametrize(("reply", "thought"), [("the coin", "the coin"), ("the coin</think>> go", "the coin</think>")])
def test_a_thought_that_the_template_begins_is_one(reply, thought):
    tokenizer = FAMILIES["qwen3"].tokenizer()
    tokenizer.chat_template = str(tokenizer.chat_template).replace("<think>\\n\\n</think>\\n\\n", "<think>\\n")
    begun, plain = Renderer(tokenizer, thinking=False), Renderer(tokenizer)
    ids = begun.reply(reply)[:-1]
    assert begun.text(ids[: begun.thought(ids)]) == thought
    assert plain.text(ids[: plain.thought(ids)]) == (thought if "</think>" in reply else "")


@pytest.mark.parametrize("name", ["llama", "gemma", "gemma3"])
def test_what_keeps_prefixes_is_appended(name):
    renderer = Renderer(FAMILIES[name].tokenizer())
    assert (renderer.history, renderer.notice) == ("append", "")
    assert "enable_thinking" in Renderer(FAMILIES[name].tokenizer(), thinking=True).notice


def test_a_context_without_system_role_stands_in_front_of_the_first_observation():
    tokenizer = FAMILIES["gemma"].tokenizer()
    ids = Renderer(tokenizer).opening("Notes.", "You are in the Hall.")
    shown = "<bos><start_of_turn>user\nNotes.\n\nYou are in the Hall.<end_of_turn>\n<start_of_turn>model\n"
    assert tokenizer.decode(ids) == shown


def test_no_text_becomes_a_special_token(name):
    tokenizer = FAMILIES[name].tokenizer()
    special = {tokenizer.get_vocab()[token] for token in FAMILIES[name].special}
    renderer = Renderer(tokenizer, "per_turn")
    spoken = "".join(FAMILIES[name].special)
    counts = [
        sum(i in special for i in renderer.prompt(text, [text, text], [text]))
        for text in ("the coin", spoken, f"x{spoken}")
    ]
    assert counts[0] == counts[1] == counts[2]


def play(policy, context, slots=2):
    """A few turns of some episodes side by side."""
    session = policy.begin(context, range(slots))
    played = [[] for _ in range(slots)]
    for t, text in enumerate(HEARD):
        asked = {s: (f"{text}{s}", {}) for s in range(slots) if t < len(HEARD) - s}
        for slot, reply in answers(session, asked).items():
            ids = (reply.prompt_ids, reply.sampled_ids, reply.logprobs)
            played[slot].append(Turn(asked[slot][0], reply.text, reply.text, 0.0, *ids))
    task = Task("plain", {}, 0, Split.TRAIN, "w", "f", None, 9)
    return [Episode(task, tuple(turns), Outcome.LOST, Provenance("m", "", 0, "")) for turns in played]


def conversation(episode, history):
    """Whole prompt and reply of each turn."""
    row = []
    for turn in episode.turns:
        row = [*row, *turn.prompt_ids] if history == "append" else list(turn.prompt_ids)
        yield row, list(turn.sampled_ids), turn.logprobs
        row = [*row, *turn.sampled_ids]


@each_case
@pytest.mark.parametrize("context", [None, NOTES])
def test_replies_are_those_of_a_plain_forward_pass(name, history, thinking, context):
    tokenizer = FAMILIES[name].tokenizer()
    network = FAMILIES[name].network(len(tokenizer))
    renderer = Renderer(tokenizer, history, thinking)
    policy = HuggingFacePolicy(network, renderer, name, temperature=0, longest=12)
    for episode in play(policy, context):
        for prompt, said, logprobs in conversation(episode, history):
            with torch.no_grad():
                scores = torch.log_softmax(network(torch.tensor([prompt + said])).logits[0, len(prompt) - 1 : -1], -1)
            assert scores.argmax(-1).tolist() == said
            torch.testing.assert_close(
                torch.tensor(logprobs), scores.max(-1).values, atol=1e-4, rtol=0, check_dtype=False
            )
        texts = [turn.observation for turn in episode.turns], [turn.reply for turn in episode.turns]
        if history == "per_turn":
            for i, turn in enumerate(episode.turns):
                assert list(turn.prompt_ids) == renderer.prompt(context, texts[0][: i + 1], texts[1][:i])


@each_case
@pytest.mark.parametrize("context", [None, NOTES])
def test_rows_share_what_was_said(name, history, thinking, context):
    """Whoever played; the student's prompts are those it played with if it played without the context."""
    tokenizer = FAMILIES[name].tokenizer()
    renderer = Renderer(tokenizer, history, thinking)
    policy = HuggingFacePolicy(FAMILIES[name].network(len(tokenizer)), renderer, name, longest=6)
    for episode in play(policy, context):
        pairs = examples(episode, renderer, NOTES)
        assert len(pairs) == (1 if history == "append" else len(episode.turns))
        assert [i for pair in pairs for i in pair.student.said] == [i for t in episode.turns for i in t.sampled_ids]
        rows = [*conversation(episode, history)] if history == "per_turn" else [*conversation(episode, history)][-1:]
        played = [tuple(prompt + said) for prompt, said, _ in rows]
        assert [(pair.teacher if context else pair.student).ids for pair in pairs] == played
        for pair in pairs:
            assert len(pair.teacher.ids) > len(pair.student.ids)


def test_one_row_an_episode_needs_one_that_grows():
    renderer = Renderer(FAMILIES["qwen3"].tokenizer())
    policy = HuggingFacePolicy(FAMILIES["qwen3"].network(500), renderer, "tiny", longest=2)
    with pytest.raises(UsageError, match="append"):
        example(play(policy, None)[0], renderer, NOTES)


def test_a_row_beyond_the_models_positions_is_refused(name):
    tokenizer = FAMILIES[name].tokenizer()
    renderer, network = Renderer(tokenizer), FAMILIES[name].network(len(tokenizer))
    (episode, _) = play(HuggingFacePolicy(network, renderer, name, longest=4), None)
    longest = max(len(pair.teacher.ids) for pair in examples(episode, renderer, NOTES, positions(network)))
    assert positions(network) == 4096
    examples(episode, renderer, NOTES, longest)
    with pytest.raises(ModelError, match=f"at most {longest - 1} ids, .* got one of {longest}"):
        examples(episode, renderer, NOTES, longest - 1)


WINDOWED: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "gemma3": (
        FAMILIES["gemma3"].model,
        FAMILIES["gemma3"].config,
        {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}),
    "mistral": (MistralForCausalLM, MistralConfig, {"sliding_window": 4}),
    "mistral without": (MistralForCausalLM, MistralConfig, {"sliding_window": None}),
    "qwen3": (FAMILIES["qwen3"].model, FAMILIES["qwen3"].config, {}),
}


@pytest.mark.parametrize("kind", WINDOWED)
def test_grown_rows_have_the_states_of_one_pass(kind):
    """Rows of different lengths, far beyond the window, dropped, rewound and extended."""
    model, config, extra = WINDOWED[kind]
    torch.manual_seed(1)
    network = model(config(vocab_size=60, **SHAPE, **extra)).eval()
    check(network, FAMILIES["llama"].tokenizer(), kind)
    rows = [torch.randint(60, (n,)).tolist() for n in (23, 9, 17)]
    cache = RowCache(network.get_decoder(), 3)
    with torch.no_grad():
        cache.append([row[:7] for row in rows])
        cache.append([[1, 2, 3, 4, 5], [6], [7, 8]])
        cache.rewind([7, 5, 6])
        cache.keep([2, 0])
        kept = [(rows[2], 6), (rows[0], 7)]
        states = cache.extend(*pad_rows([row[n:] for row, n in kept], network.device))
        for (row, n), mine in zip(kept, states, strict=True):
            whole = network.get_decoder()(torch.tensor([row])).last_hidden_state[0, n:]
            torch.testing.assert_close(mine[: len(whole)], whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (
            lambda: MambaForCausalLM(MambaConfig(vocab_size=60, hidden_size=32, num_hidden_layers=2, state_size=4)),
            "keeps states",
        ),
        (lambda: BloomForCausalLM(BloomConfig(vocab_size=60, hidden_size=32, n_layer=2, n_head=4)), "keeps states"),
        (lambda: Gemma2ForCausalLM(Gemma2Config(vocab_size=60, **SHAPE)), "caps its logits"),
    ],
    ids=["mamba", "bloom", "gemma2"],
)
def test_what_cannot_be_exact_is_refused(network, reason):
    with pytest.raises(ModelError, match=reason):
        check(network().eval(), FAMILIES["llama"].tokenizer(), "odd")


def test_a_common_model_passes():
    check(FAMILIES["llama"].model(LlamaConfig(vocab_size=60, **SHAPE)).eval(), FAMILIES["llama"].tokenizer(), "llama")
