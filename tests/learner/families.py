"""Tiny random models of three families, with tokenizers whose chat templates have the shape of the published ones."""

from dataclasses import dataclass, field
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

QWEN = """\
{%- for m in messages %}
    {%- set content = m.content %}
    {%- if m.role == 'assistant' and '</think>' in content %}
        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
    {%- endif %}
    {{- '<|im_start|>' + m.role + '\\n' + content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""

LLAMA = """\
{{- bos_token }}
{%- for m in messages %}
    {{- '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"""

GEMMA = """\
{{- bos_token }}
{%- if messages[0].role == 'system' %}{{- raise_exception('System role not supported') }}{%- endif %}
{%- for m in messages %}
    {{- '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' + m.content | trim + '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<start_of_turn>model\\n' }}{%- endif %}"""

# Gemma 3 takes a system message, and puts it in front of the first user message.
GEMMA3 = """\
{{- bos_token }}
{%- set loop_messages, before = messages, '' %}
{%- if messages[0].role == 'system' %}
    {%- set loop_messages, before = messages[1:], messages[0].content + '\\n\\n' %}
{%- endif %}
{%- for m in loop_messages %}
    {{- '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' + (before if loop.first else '') }}
    {{- m.content | trim + '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<start_of_turn>model\\n' }}{%- endif %}"""

TEXT = ["You are in the Hall.\n\nuser\nassistant\nsystem\nmodel\n\n<think>\n\nthe coin. > go south\n"] * 20
SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 4096,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}


def tokenizer_of(template: str, special: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on a little text; the first special token begins, the second ends."""
    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    plain.train_from_iterator(
        TEXT, trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=letters)
    )
    plain.add_tokens(["<think>", "</think>"])  # no special tokens, as in Qwen3
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, bos_token=special[0], eos_token=special[1])
    tokenizer.chat_template = template
    return tokenizer


@dataclass(frozen=True)
class Family:
    """How to make a tokenizer and a random model."""

    template: str
    special: list[str]
    model: Any
    config: Any
    extra: dict[str, Any] = field(default_factory=dict[str, Any])

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """A new tokenizer."""
        return tokenizer_of(self.template, self.special)

    def network(self, vocabulary: int) -> PreTrainedModel:
        """The same weights each time, large enough that what is read matters."""
        torch.manual_seed(0)
        network = self.model(self.config(vocab_size=vocabulary, **SHAPE, **self.extra)).eval()
        with torch.no_grad():
            for parameter in network.parameters():
                if parameter.ndim == 2:
                    parameter.mul_(8)
        return network


_IM = ["<|im_start|>", "<|im_end|>"]
_TURN = ["<bos>", "<end_of_turn>", "<start_of_turn>"]
_WINDOW: dict[str, Any] = {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]}
FAMILIES = {
    "qwen3": Family(QWEN, _IM, Qwen3ForCausalLM, Qwen3Config),
    "llama": Family(
        LLAMA,
        ["<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"],
        LlamaForCausalLM,
        LlamaConfig,
    ),
    "gemma": Family(GEMMA, _TURN, Gemma3ForCausalLM, Gemma3TextConfig, _WINDOW),
    "gemma3": Family(GEMMA3, _TURN, Gemma3ForCausalLM, Gemma3TextConfig, _WINDOW),
}
