"""What it costs to sample replies in episodes of several turns: tokens a CPU second on one thread, as a Markdown table.

`policy` is this project's: keys and values are kept across the turns, a draw needs one uniform number a row. `generate`
is `model.generate` of transformers on the same conversations, which encodes each turn's whole history again, in one batch
padded on the left, and samples from the same distribution (temperature 1, nothing cut off). Both sample the
same number of ids each turn, the same in all episodes, so that `generate` wastes nothing on rows that ended early.
The model is random: this measures work, not play.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from opcd_agents.policies.huggingface import HuggingFacePolicy
from opcd_agents.render import Renderer

EPISODES, TURNS = 32, 5
PAD = 0

Prompts = list[list[int]]  # the new ids of each episode in one turn


class IdText:
    """A renderer whose texts are ids in decimals: lengths are exact, and no reply ends early."""

    end_id = -1
    history = "append"

    def opening(self, context: str | None, observation: str) -> list[int]:
        """Ids of the first observation."""
        return [int(i) for i in observation.split()]

    def following(self, sampled: Sequence[int], observation: str) -> list[int]:
        """Ids of a later observation."""
        return self.opening(None, observation)

    def text(self, sampled: Sequence[int]) -> str:
        """Ids as text."""
        return " ".join(map(str, sampled))


def build(vocabulary: int) -> PreTrainedModel:
    """A random Qwen3."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=PAD,
    )
    return Qwen3ForCausalLM(config).eval()


def with_policy(network: PreTrainedModel, prompts: Sequence[Prompts], lengths: Sequence[int]) -> int:
    """Play with this project's policy; returns how many ids were sampled."""
    policy = HuggingFacePolicy(network, cast("Renderer", IdText()), "policy")
    session = policy.begin(None, range(len(prompts[0])))
    sampled = 0
    for turn, length in zip(prompts, lengths, strict=True):
        policy.longest = length
        heard: dict[int, tuple[str, dict[str, Any]]] = {i: (" ".join(map(str, ids)), {}) for i, ids in enumerate(turn)}
        sampled += sum(len(reply.sampled_ids) for reply in session.reply(heard).values())
    return sampled


def with_generate(network: PreTrainedModel, prompts: Sequence[Prompts], lengths: Sequence[int]) -> int:
    """Play with `model.generate`; returns how many ids were sampled."""
    rows: Prompts = [[] for _ in prompts[0]]
    sampled = 0
    for turn, length in zip(prompts, lengths, strict=True):
        rows = [row + new for row, new in zip(rows, turn, strict=True)]
        longest = max(map(len, rows))
        ids = torch.tensor([[PAD] * (longest - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        out = cast("Any", network).generate(
            ids,
            attention_mask=mask,
            do_sample=True,
            top_k=0,
            top_p=1.0,
            temperature=1.0,
            min_new_tokens=length,
            max_new_tokens=length,
            pad_token_id=PAD,
        )
        replies = out[:, longest:].tolist()
        rows = [row + reply for row, reply in zip(rows, replies, strict=True)]
        sampled += sum(map(len, replies))
    return sampled


def rate(
    play: Callable[[PreTrainedModel, Sequence[Prompts], Sequence[int]], int],
    network: PreTrainedModel,
    prompts: Sequence[Prompts],
    lengths: Sequence[int],
) -> float:
    """Sampled ids a CPU second, after a short turn that pays for what torch does once."""
    with torch.inference_mode():
        play(network, [prompts[0]], [2])
        began = time.process_time()
        return play(network, prompts, lengths) / (time.process_time() - began)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Sampled tokens a CPU second, as a Markdown table.")
    parser.add_argument("--vocab", type=int, nargs="+", default=[32_000, 151_936], help="sizes of the vocabulary")
    parser.add_argument("--only", choices=["policy", "generate"], help="measure one side, without the ratio")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    lengths = rng.integers(24, 65, TURNS).tolist()
    print(f"{EPISODES} episodes of {TURNS} turns, 32 to 48 ids heard and {lengths} sampled; Qwen3, 4 layers of 256\n")
    print("|vocabulary|policy, tokens/s|generate, tokens/s|ratio|\n|-|-|-|-|")
    for vocabulary in asked.vocab:
        network = build(vocabulary)
        prompts = [
            [rng.integers(1, vocabulary, int(n)).tolist() for n in rng.integers(32, 49, EPISODES)] for _ in lengths
        ]
        ours = rate(with_policy, network, prompts, lengths) if asked.only != "generate" else float("nan")
        theirs = rate(with_generate, network, prompts, lengths) if asked.only != "policy" else float("nan")
        print(f"|{vocabulary:,}|{ours:.0f}|{theirs:.0f}|{ours / theirs:.1f}|", flush=True)


if __name__ == "__main__":
    main()
