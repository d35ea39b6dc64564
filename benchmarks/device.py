"""One multi-turn update of a model of real size on the device at hand: tokens a second, share of what the device can do, memory.

A random Qwen3 (the configuration of Qwen3-1.7B, unless a smaller one is asked for) plays episodes of several turns without the context,
a frozen copy of it scores them with the context, and one AdamW step on all weights is taken: the path of `opcd distill`
with float32 weights and passes in the asked type. Weights are random and no reply ends early: this measures work, not learning.

Limits are measured on the same device in the same run: bytes a second of a large copy (read and write), and FLOP a second of a large
matrix product in the type of the passes. A decoding step must read all weights and the states of its rows once; an update must do 6 FLOP a
student id and weight, 2 a teacher id and weight, and 8 a row, column and unit of the head (both models forward, two gradients).
Shares are of these; activations, attention and the optimiser are not counted, so the true shares are a little higher.

The result is printed and written to results/ under the device's name.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from layouts import IdText
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from opcd_agents.learner.roles import cast_roles
from opcd_agents.policies.huggingface import HuggingFacePolicy
from opcd_agents.recipe import Recipe
from opcd_agents.render import Renderer
from opcd_agents.types import Example, Tokens, Turn

RESULTS = Path(__file__).parent / "results"
SIZES: dict[str, dict[str, int]] = {
    "qwen3-1.7b": {"vocab_size": 151_936, "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28,
                   "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128},
    "tiny": {"vocab_size": 4000, "hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16},
}  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """What is played. Lengths in ids."""

    episodes: int
    turns: int
    context: int
    heard: int = 40
    said: int = 24


@dataclass(frozen=True)
class Found:
    """What came of it. Shares are of the device's measured limits; `memory` is the peak in MiB."""

    device: str
    model: str
    dtype: str
    shape: Shape
    bytes_a_second: float
    flop_a_second: float
    rollout_seconds: float
    rollout_tokens_a_second: float
    rollout_share_of_bandwidth: float
    learning_seconds: float
    learning_tokens_a_second: float
    learning_share_of_flop: float
    memory: float
    torch: str


def build(size: str, device: torch.device) -> PreTrainedModel:
    """A random Qwen3 with float32 weights."""
    torch.manual_seed(0)
    config = Qwen3Config(
        **SIZES[size], max_position_embeddings=40_960, tie_word_embeddings=True, bos_token_id=None, eos_token_id=None
    )
    with device:
        return Qwen3ForCausalLM(config).eval()


def fastest(work: Callable[[], Any], device: torch.device, times: int = 3) -> float:
    """The least seconds that some work takes."""
    found: list[float] = []
    for _ in range(times):
        settle(device)
        began = time.perf_counter()
        work()
        settle(device)
        found.append(time.perf_counter() - began)
    return min(found)


def settle(device: torch.device) -> None:
    """Wait for what the device still does."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def limits(device: torch.device, dtype: torch.dtype) -> tuple[float, float]:
    """Bytes and FLOP a second that a large copy and a large product reach."""
    large = 1 << (28 if device.type == "cuda" else 25)
    source = torch.empty(large, device=device)
    target = torch.empty_like(source)
    seconds = fastest(lambda: target.copy_(source), device, 10)
    side = 8192 if device.type == "cuda" else 1024
    square = torch.randn(side, side, device=device).to(dtype)
    return 2 * large * source.element_size() / seconds, 2 * side**3 / fastest(lambda: square @ square, device, 10)


def play(policy: HuggingFacePolicy, shape: Shape) -> list[Tokens]:
    """Episodes against an environment that says random things, as rows."""
    rng = np.random.default_rng(1)
    vocabulary = policy.network.config.vocab_size
    session = policy.begin(None, range(shape.episodes))
    slots: list[list[Turn]] = [[] for _ in range(shape.episodes)]
    for _ in range(shape.turns):
        heard: dict[int, tuple[str, dict[str, Any]]] = {
            slot: (" ".join(map(str, rng.integers(vocabulary, size=shape.heard))), {}) for slot in range(len(slots))
        }
        for slot, reply in session.reply(heard).items():
            ids = (reply.prompt_ids, reply.sampled_ids, reply.logprobs)
            slots[slot].append(Turn(heard[slot][0], reply.text, reply.text, 0.0, *ids))
    return [Tokens.of(turns) for turns in slots]


def measure(size: str, device: torch.device, dtype: str, shape: Shape) -> Found:
    """Play and learn, after one small round that pays for what is done once."""
    network = build(size, device)
    weights = sum(p.numel() for p in network.parameters())
    vocabulary, hidden = network.get_output_embeddings().weight.shape
    config = network.config
    states = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim  # numbers an id
    recipe = Recipe(dtype=dtype, longest=shape.said, temperature=1.0, lr=1e-6, diagnose=0, row_tokens=16_384)
    policy = HuggingFacePolicy(network, cast("Renderer", IdText()), size)
    roles = cast_roles(policy, recipe, lambda name: network)
    rng = np.random.default_rng(2)
    context = tuple(rng.integers(vocabulary, size=shape.context).tolist())

    def examples(rows: list[Tokens]) -> list[Example]:
        return [Example(row, Tokens((*context, *row.ids), (False,) * len(context) + row.sampled)) for row in rows]

    roles.learner.update(examples(play(roles.player, Shape(2, 1, shape.context))))  # and the context's states
    roles.refresh()
    low = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    copied, multiplied = limits(device, low)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    rows: list[Tokens] = []
    rollout = fastest(lambda: rows.extend(play(roles.player, shape)), device, 1)
    learning = fastest(lambda: roles.learner.update(examples(rows)), device, 1)
    said = sum(len(row.said) for row in rows)
    ids = sum(len(row.ids) for row in rows)
    width = 2 if low is torch.bfloat16 else 4
    steps = shape.turns * shape.said
    mean_length = ids / len(rows) / 2
    read = steps * width * (weights + states * mean_length * len(rows))
    inside = weights - vocabulary * hidden  # a tied head; the embedding is looked up
    flop = 6 * inside * ids + 2 * inside * ids + 8 * vocabulary * hidden * said
    return Found(
        named(device), size, dtype, shape, copied, multiplied,
        rollout, said / rollout, read / rollout / copied,
        learning, ids / learning, flop / learning / multiplied,
        peak(device), torch.__version__,
    )  # fmt: skip


def peak(device: torch.device) -> float:
    """Largest memory in MiB: allocated on a GPU, else the resident set of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / (1 << 20)
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def named(device: torch.device) -> str:
    """What the device is called."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU {platform.machine()}"


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", choices=sorted(SIZES), default="qwen3-1.7b")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--episodes", type=int, default=32)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--context", type=int, default=1024)
    asked = parser.parse_args()
    shape = Shape(asked.episodes, asked.turns, asked.context)
    found = measure(asked.model, torch.device(asked.device), asked.dtype, shape)
    print(
        "| device | model | rollout: ids/s | of bandwidth | learning: ids/s | of FLOP | MiB |\n|---|---|--:|--:|--:|--:|--:|"
    )
    print(
        f"| {found.device} | {found.model}, {found.dtype} | {found.rollout_tokens_a_second:,.0f} "
        f"| {found.rollout_share_of_bandwidth:.0%} | {found.learning_tokens_a_second:,.0f} "
        f"| {found.learning_share_of_flop:.0%} | {found.memory:,.0f} |"
    )
    RESULTS.mkdir(exist_ok=True)
    name = "-".join(f"{found.device} {found.model} {found.dtype}".lower().replace("/", " ").split())
    (RESULTS / f"{name}.json").write_text(json.dumps(asdict(found), indent=1) + "\n")


if __name__ == "__main__":
    main()
