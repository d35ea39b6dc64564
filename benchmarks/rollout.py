"""What it costs to sample replies in episodes of several turns: tokens a CPU second on one thread, as a Markdown table.

`policy` is this project's: keys and values are kept across the turns, a draw needs one uniform number a row. `generate`
is `model.generate` of transformers on the same conversations, which encodes each turn's whole history again, in one batch
padded on the left, and samples from the same distribution (temperature 1, nothing cut off). Replies are `equal` in length,
the kindest case for `generate`, which computes every row until the last has ended; or they end `by chance`, as real
ones do, and only ids up to the end count. The model is random: this measures work, not play.
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
SHORTEST, LONGEST = 24, 64
PAD, END = 0, 1
MEAN = 44  # ids of a reply that ends by chance, were it not cut off at the longest

Prompts = list[list[int]]  # the new ids of each episode in one turn


class IdText:
    """A renderer whose texts are ids in decimals: lengths are exact."""

    history = "append"

    def __init__(self, end_id: int) -> None:
        self.end_id = end_id

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
    """A random Qwen3 in which the end has about the same probability everywhere."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=PAD,
    )
    network = Qwen3ForCausalLM(config).eval()
    ids = torch.randint(2, vocabulary, (8, 64))
    with torch.no_grad():
        network.get_input_embeddings().weight[:, 0] = 1.0  # what all states have in common
        hidden = network.get_decoder()(ids).last_hidden_state
        head = network.get_output_embeddings().weight
        height = (hidden @ head.T).logsumexp(-1).mean() - np.log(MEAN - 1)
        head[END] = 0
        head[END, 0] = height / hidden[..., 0].mean()
    return network


def with_policy(network: PreTrainedModel, prompts: Sequence[Prompts], lengths: Sequence[int], end: int) -> int:
    """Play with this project's policy; returns how many ids were sampled."""
    policy = HuggingFacePolicy(network, cast("Renderer", IdText(end)), "policy")
    session = policy.begin(None, range(len(prompts[0])))
    turns = dict.fromkeys(range(len(prompts[0])), 0)  # of each episode, its next one
    asked, sampled = set(turns), 0
    while asked or turns:
        heard: dict[int, tuple[str, dict[str, Any]]] = {
            slot: (" ".join(map(str, prompts[turns[slot]][slot])), {}) for slot in asked
        }
        policy.longest = lengths[max(turns[slot] for slot in asked)] if asked else policy.longest
        replies = session.reply(heard)
        sampled += sum(len(reply.sampled_ids) for reply in replies.values())
        for slot in replies:
            turns[slot] += 1
        turns = {slot: turn for slot, turn in turns.items() if turn < len(prompts)}
        asked = turns.keys() & replies.keys()
    return sampled


def with_generate(network: PreTrainedModel, prompts: Sequence[Prompts], lengths: Sequence[int], end: int) -> int:
    """Play with `model.generate`; returns how many ids were sampled."""
    rows: Prompts = [[] for _ in prompts[0]]
    sampled = 0
    for turn, length in zip(prompts, lengths, strict=True):
        rows = [row + new for row, new in zip(rows, turn, strict=True)]
        longest = max(map(len, rows))
        out = cast("Any", network).generate(
            torch.tensor([[PAD] * (longest - len(row)) + row for row in rows]),
            attention_mask=torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows]),
            do_sample=True,
            top_k=0,
            top_p=1.0,
            temperature=1.0,
            max_new_tokens=length,
            eos_token_id=None if end < 0 else end,
            pad_token_id=PAD,
        )
        replies = [cut(reply, end) for reply in out[:, longest:].tolist()]
        rows = [row + reply for row, reply in zip(rows, replies, strict=True)]
        sampled += sum(map(len, replies))
    return sampled


def cut(reply: list[int], end: int) -> list[int]:
    """A reply up to its end, if it has one."""
    return reply[: reply.index(end) + 1] if end in reply else reply


def rate(
    play: Callable[[PreTrainedModel, Sequence[Prompts], Sequence[int], int], int],
    network: PreTrainedModel,
    prompts: Sequence[Prompts],
    lengths: Sequence[int],
    end: int,
) -> tuple[float, float]:
    """Sampled ids a CPU second, after a short turn that pays for what torch does once; and ids of a reply in the mean."""
    torch.manual_seed(0)
    with torch.inference_mode():
        play(network, [prompts[0]], [2], end)
        began = time.process_time()
        sampled = play(network, prompts, lengths, end)
        return sampled / (time.process_time() - began), sampled / EPISODES / TURNS


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Sampled tokens a CPU second, as a Markdown table.")
    parser.add_argument("--vocab", type=int, nargs="+", default=[32_000, 151_936], help="sizes of the vocabulary")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the weights of both")
    asked = parser.parse_args()
    sizes, dtype = asked.vocab, cast("torch.dtype", getattr(torch, asked.dtype))
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    cases = {
        "equal": (rng.integers(SHORTEST, LONGEST + 1, TURNS).tolist(), -1),
        "by chance": ([LONGEST] * TURNS, END),
    }
    print(f"{EPISODES} episodes of {TURNS} turns, 32 to 48 ids heard in each; Qwen3, 4 layers of 256, {asked.dtype}\n")
    print("|vocabulary|replies|ids of a reply|policy, tokens/s|generate, tokens/s|ratio|\n|-|-|-|-|-|-|")
    for vocabulary in sizes:
        network = build(vocabulary).to(dtype)  # pyright: ignore[reportArgumentType]
        heard = rng.integers(32, 49, (TURNS, EPISODES))
        prompts = [[rng.integers(2, vocabulary, int(n)).tolist() for n in turn] for turn in heard]
        for name, (lengths, end) in cases.items():
            ours, mean = rate(with_policy, network, prompts, lengths, end)
            theirs, other = rate(with_generate, network, prompts, lengths, end)
            print(
                f"|{vocabulary:,}|{name}|{mean:.0f}, {other:.0f}|{ours:.0f}|{theirs:.0f}|{ours / theirs:.1f}|",
                flush=True,
            )


if __name__ == "__main__":
    main()
