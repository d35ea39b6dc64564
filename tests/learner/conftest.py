"""A tiny random Llama with the pocket tokenizer: real code paths, milliseconds."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from opcd_agents.pocket.tokens import train_tokenizer
from opcd_agents.render import Renderer

TEXTS = ["You are in the Hall.", "> go south", "Notes: coin crate. crate Hall.", "Find the coin and take it."] * 6


def tiny(vocabulary: int, seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    network = LlamaForCausalLM(config).eval()
    with torch.no_grad():  # sharper than the default initialisation, so that rows differ visibly
        for parameter in network.parameters():
            if parameter.ndim == 2:
                parameter.mul_(8)
    return network


@pytest.fixture(scope="session")
def tokenizer():
    return train_tokenizer(TEXTS, 400)


@pytest.fixture(scope="session")
def renderer(tokenizer):
    return Renderer(tokenizer)


@pytest.fixture
def network(tokenizer):
    return tiny(len(tokenizer))
