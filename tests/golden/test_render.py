"""What the renderer appends turn by turn is what the tokenizer's own chat template renders at once."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from opcd_agents.errors import TemplateError
from opcd_agents.pocket.tokens import CHAT_TEMPLATE, train_tokenizer
from opcd_agents.render import Renderer

WORDS = ["You are in the Hall.", "> go south\n", "Notes: coin crate. crate Hall.", "user system assistant"] * 6
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DEFAULT_SYSTEM = "{% if messages[0].role != 'system' %}<|im_start|>system\nBe good.<|im_end|>\n{% endif %}" + CHATML
TURNS = [
    "{% for m in messages %}",
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n{% endfor %}",
]
GEMMA = "<bos>" + "".join(TURNS) + "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
FORGETS = "{% set last = messages[-1] %}<|im_start|>{{ last.content }}<|im_end|>"
SPECIAL = ["<|im_start|>", "<|im_end|>", "<bos>", "<start_of_turn>", "<end_of_turn>"]

_base = train_tokenizer(WORDS, 400)
_base.add_special_tokens({"extra_special_tokens": SPECIAL}, replace_extra_special_tokens=False)


def with_template(template: str) -> PreTrainedTokenizerFast:
    _base.chat_template = template
    return _base


@pytest.mark.parametrize(
    "template", [CHAT_TEMPLATE, CHATML, DEFAULT_SYSTEM, GEMMA], ids=["pocket", "chatml", "default-system", "gemma"]
)
@pytest.mark.parametrize("context", [None, "Notes: coin crate."])
def test_appended_turns_equal_the_template(template, context):
    tokenizer = with_template(template)
    renderer = Renderer(tokenizer)
    heard, said = ["You are in the Hall.", "the crate", "Hall coin"], ["> go south", "coin crate"]
    ids = renderer.opening(context, heard[0])
    messages = [{"role": "system", "content": context}] if context else []
    messages.append({"role": "user", "content": heard[0]})
    for reply, observation in zip(said, heard[1:], strict=True):
        sampled = [*tokenizer.encode(reply, add_special_tokens=False), renderer.end_id]
        ids += [*sampled, *renderer.following(sampled, observation)]
        messages += [{"role": "assistant", "content": reply}, {"role": "user", "content": observation}]
    whole = tokenizer.apply_chat_template(messages, tokenize=True, add_generation_prompt=True, return_dict=False)
    assert ids == list(whole)


def test_a_reply_that_was_cut_off_is_closed():
    renderer = Renderer(with_template(CHATML))
    assert renderer.following([7, 8], "x") == [renderer.end_id, *renderer.following([7, renderer.end_id], "x")]


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.sampled_from([*SPECIAL, "<|end|>", "<|user|>", "<|pad|>", "coin ", "\n", "é"]), max_size=8).map("".join)
)
def test_text_never_becomes_a_special_token(text):
    tokenizer = with_template(CHATML)
    renderer = Renderer(tokenizer)
    special = set(tokenizer.all_special_ids)
    scaffold = sum(i in special for i in renderer.opening("", ""))
    assert sum(i in special for i in renderer.opening(text, text)) == scaffold
    assert sum(i in special for i in renderer.following([1], text)) == sum(
        i in special for i in renderer.following([1], "")
    )
    assert tokenizer.decode(renderer._plain(text), skip_special_tokens=False) == text


def test_a_template_that_forgets_is_refused():
    with pytest.raises(TemplateError, match="shows every message"):
        Renderer(with_template(FORGETS))


THINKS = CHATML.replace("{{ m.content }}", "{% if m.role == 'assistant' %}<think>{% endif %}{{ m.content }}")
STRIPS = CHATML.replace(
    "{{ m.content }}", "{{ m.content.split('</think>')[-1] if m.role == 'assistant' else m.content }}"
)
LATER = CHATML.replace("{{ m.role }}", "{{ m.role }}{{ '!' if messages | length > 3 }}")


@pytest.mark.parametrize(
    ("template", "reason"),
    [(THINKS, "opens a reply otherwise"), (STRIPS, "drops the thoughts"), (LATER, "once others follow")],
    ids=["opens", "strips", "later"],
)
def test_a_template_that_rewrites_earlier_turns_is_rendered_turn_by_turn(template, reason):
    tokenizer = with_template(template)
    with pytest.raises(TemplateError, match=f"keeps earlier turns as a prefix, got one that .*{reason}"):
        Renderer(tokenizer, "append")
    assert Renderer(tokenizer, "per_turn").notice == ""  # as it was asked for
    renderer = Renderer(tokenizer)
    assert renderer.history == "per_turn"
    assert reason in renderer.notice
    messages = []
    heard, said = ["You are in the Hall.", "the crate", "Hall coin"], ["<think>coin</think>> go south", "coin crate"]
    for index, text in enumerate(heard):
        messages.append({"role": "user", "content": text})
        whole = tokenizer.apply_chat_template(messages, tokenize=True, add_generation_prompt=True, return_dict=False)
        assert renderer.prompt(None, heard[: index + 1], said[:index]) == list(whole)
        messages += [{"role": "assistant", "content": text} for text in said[index : index + 1]]


def test_a_template_that_ends_no_reply_is_refused():
    with pytest.raises(TemplateError, match="ends a reply with a token"):
        Renderer(with_template("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: "))


def test_the_end_token_is_known():
    assert Renderer(with_template(CHATML)).end_id == _base.convert_tokens_to_ids("<|im_end|>")
