"""What one multi-turn update costs in three layouts of the same rows: seconds, tokens, head rows, memory.

`this learner` plays with its keys and values kept across turns, encodes one row an episode and the context once for all,
projects only what predicts a sampled id, and never holds [rows, vocabulary]. The two others are restated in plain torch:

* `episode row`: one row an episode, the context encoded in each teacher row, logits [B, T, V] of both models for the whole
  completion, observations included, as single-turn trainers do (T: from the first reply on).
* `row per turn`: each turn a row of its own with all that came before it, the context encoded in each, every id through
  both heads, as LMOps does; one row a pass, which is kindest to its memory.

Both encode their whole history again at each turn of the rollout: with this project's draws, and once more by `model.generate`, as the
trainers that one can install do. All learn from the same sampled ids, with the exact
reverse KL over the whole vocabulary, so loss and gradient must agree: the program ends with exit code 1 where they do not.
The models are random: this measures work, not learning. Each layout runs in a process of its own, on one thread,
and its memory is the growth of the resident set's peak, read from Linux's /proc.

What flatters this learner: the context is long, shared by all episodes, and read before the timed update, as in a run it was by
an earlier one (`with its context prefill` counts it in); the others are not tuned, and on a GPU their padding and kernels would
count for less. What flatters the others: but for the columns of `generate` they sample with this project's policy, whose draws are
cheaper; `row per turn` needs no second pass for the top ids, as LMOps does; no reply ends early.
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from layouts import Dense, Forgetful, IdText, Meter, Ours, Updater, Work, turn_rows
from rollout import with_generate
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from opcd_agents.policies.huggingface import HuggingFacePolicy
from opcd_agents.render import Renderer
from opcd_agents.types import Example, Session, Tokens, Turn

OURS, FIRST, EPISODE, TURN = "this learner", "  with its context prefill", "episode row", "row per turn"
TOLERANCE = 1e-4  # of the loss, and of the largest gradient: float32 sums in another order
EXAMPLES = """examples:
  python benchmarks/update.py
  python benchmarks/update.py --context 1024 --only "episode row"
  python benchmarks/update.py --vocab 4000 --context 256 512 --envs 4 --turns 3    (seconds)"""


@dataclass(frozen=True)
class Sizes:
    """Shape of the update. `observation` and `action` are ids a turn."""

    vocab: int
    context: int
    envs: int
    turns: int
    observation: int = 40
    action: int = 24


@dataclass(frozen=True)
class Result:
    """One layout's update. `rows` are what was played, `generated` is the rollout by `generate`, `peak` is the growth of resident memory in MiB."""

    rollout: Work
    generated: Work
    learning: dict[str, Work]
    peak: float
    loss: float
    gradient: np.ndarray = field(repr=False)
    rows: list[Tokens] = field(repr=False)


def build(sizes: Sizes) -> PreTrainedModel:
    """A random Qwen3, the same in every process; its weights are large enough for the context to matter."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=sizes.vocab,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=1 << 17,
        tie_word_embeddings=True,
        initializer_range=0.05,
        bos_token_id=None,
        eos_token_id=None,
    )
    return Qwen3ForCausalLM(config).eval()


def random_text(rng: np.random.Generator, sizes: Sizes, length: int) -> str:
    """Random ids as `IdText` reads them."""
    return " ".join(map(str, rng.integers(sizes.vocab, size=length)))


def play(session: Session, sizes: Sizes) -> list[list[Turn]]:
    """The turns of each slot, against an environment that says random things."""
    rng = np.random.default_rng(1)
    slots: list[list[Turn]] = [[] for _ in range(sizes.envs)]
    for _ in range(sizes.turns):
        heard = {slot: (random_text(rng, sizes, sizes.observation), {}) for slot in range(sizes.envs)}
        for slot, reply in session.reply(heard).items():
            ids = (reply.prompt_ids, reply.sampled_ids, reply.logprobs)
            slots[slot].append(Turn(heard[slot][0], reply.text, reply.text, 0.0, *ids))
    return slots


def pair(row: Tokens, context: Sequence[int]) -> Example:
    """The rows of one episode: the teacher's begins with the context."""
    return Example(row, Tokens((*context, *row.ids), (False,) * len(context) + row.sampled))


def run(layout: str, sizes: Sizes, rows: list[Tokens] | None) -> Result:
    """One whole update in one layout; meant to have a process of its own.

    Args:
        layout: Its name.
        sizes: The shape of the update.
        rows: What to learn from; None: what is played here.
    """
    torch.set_num_threads(1)
    student = build(sizes)
    teacher = copy.deepcopy(student).requires_grad_(False)
    meter = Meter(student, teacher)
    policy = HuggingFacePolicy(student, cast("Renderer", IdText()), layout, longest=sizes.action)
    seeds = range(sizes.envs)
    updater = updater_of(layout, student, teacher, meter)
    context = np.random.default_rng(2).integers(sizes.vocab, size=sizes.context).tolist()
    warm_up(policy, updater, sizes)
    settled = resident("VmRSS")
    with meter.phase() as rollout:
        slots = play(policy.begin(None, seeds) if layout == OURS else Forgetful(policy, seeds), sizes)
    played = [Tokens.of(turns) for turns in slots]
    rollout.head = sum(len(row.said) for row in played)  # the policy projects what predicts a sampled id, by no module
    examples = [pair(row, context) for row in rows or played]
    with meter.phase() as generated:
        if layout != OURS:
            generate(student, sizes)
    learning: dict[str, Work] = {}
    loss = 0.0
    for name in (FIRST, OURS, OURS) if layout == OURS else (layout,):  # the second update finds the context encoded
        with meter.phase() as work:
            loss = updater.update(examples)
        learning[name] = faster(work, learning.get(name, work))
    peak = resident("VmHWM") - settled
    gradient = torch.cat([p.grad.flatten() for p in student.parameters() if p.grad is not None])
    return Result(rollout, generated, learning, peak, loss, gradient.numpy(), played)


def generate(student: PreTrainedModel, sizes: Sizes) -> None:
    """The same rollout by `model.generate`; its ids are not learnt from, so that all layouts learn from the same."""
    rng = np.random.default_rng(1)
    shape = sizes.turns, sizes.envs, sizes.observation
    with torch.inference_mode():
        with_generate(student, rng.integers(sizes.vocab, size=shape).tolist(), [sizes.action] * sizes.turns, -1)


def updater_of(layout: str, student: PreTrainedModel, teacher: PreTrainedModel, meter: Meter) -> Updater:
    """The learner of a layout."""
    if layout == OURS:
        return Ours(student, teacher, meter)
    if layout == EPISODE:
        return Dense(student, teacher, lambda examples: [examples], every=False)
    return Dense(student, teacher, turn_rows, every=True)


def warm_up(policy: HuggingFacePolicy, updater: Updater, sizes: Sizes) -> None:
    """One short turn, so that no layout pays for what torch does once; then the memory's peak is forgotten."""
    small = Sizes(sizes.vocab, 2, 1, 1, 4, 2)
    session = policy.begin(None, [0])
    updater.update([pair(Tokens.of(turns), [0, 1]) for turns in play(session, small)])
    Path("/proc/self/clear_refs").write_text("5")


def resident(key: str) -> float:
    """Resident memory of this process in MiB: `VmRSS` now, `VmHWM` at its peak."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{key}:")[1].split()[0]) / 1024


def alone(layout: str, sizes: Sizes, rows: list[Tokens] | None) -> Result:
    """`run` in a fresh process, so that no layout's memory is another's."""
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=fresh) as pool:
        return pool.submit(run, layout, sizes, rows).result()


def least(a: Result, b: Result) -> Result:
    """The first of two results, with the lesser seconds and memory of both: a busy spell of the machine only adds."""
    learning = {name: faster(work, b.learning[name]) for name, work in a.learning.items()}
    rollouts = {"rollout": faster(a.rollout, b.rollout), "generated": faster(a.generated, b.generated)}
    return replace(a, **rollouts, learning=learning, peak=min(a.peak, b.peak))


def faster(a: Work, b: Work) -> Work:
    """The work of two that took fewer seconds."""
    return min(a, b, key=lambda work: work.seconds)


TITLE = (
    "| context | layout | rollout: CPU s | ids | head rows | learning: CPU s | student ids | teacher ids | head rows "
    "| all: CPU s | learning, times ours | all, times ours | rollout by generate: CPU s | all so, times ours | MiB |\n|--:|---|"
    + "--:|"
    * 13
)


def table(results: dict[str, Result], context: int) -> Iterator[str]:
    """Lines of the table; times are those of `this learner`."""
    ours = results[OURS]
    base = ours.learning[OURS].seconds
    whole = ours.rollout.seconds + base
    for result in results.values():
        for name, work in result.learning.items():
            all_of_it = result.rollout.seconds + work.seconds
            plain = (result.rollout if result is ours else result.generated).seconds
            yield (
                f"| {context:,} | {name} | {result.rollout.seconds:.2f} | {result.rollout.student:,} | {result.rollout.head:,} "
                f"| {work.seconds:.2f} | {work.student:,} | {work.teacher:,} | {work.head:,} | {all_of_it:.2f} "
                f"| {work.seconds / base:.2f} | {all_of_it / whole:.2f} | {plain:.2f} | {(plain + work.seconds) / whole:.2f} "
                f"| {result.peak:,.0f} |"
            )


def compare(name: str, other: Result, ours: Result) -> tuple[str, bool]:
    """Whether a layout computed the same thing, and by how much it differs."""
    loss = abs(other.loss - ours.loss)
    worst = float(np.abs(other.gradient - ours.gradient).max())
    largest = float(np.abs(ours.gradient).max())
    same = loss <= TOLERANCE * abs(ours.loss) and worst <= TOLERANCE * largest
    text = f"loss differs by {loss:.1e} of {ours.loss:.6f}, gradient by at most {worst:.1e} (largest {largest:.1e})"
    return f"{name}: {text}{'' if same else '  <- NOT THE SAME'}", same


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"wanted a whole number of at least 1, got {text!r}")
    return int(text)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="CPU seconds, tokens, head rows and memory of one multi-turn update, in three layouts.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--vocab", type=positive, default=32_000, help="size of the vocabulary (32000)")
    parser.add_argument(
        "--context", type=positive, nargs="+", default=[256, 1024, 4096], help="ids of the context (256 1024 4096)"
    )
    parser.add_argument("--envs", type=positive, default=8, help="episodes of the update (8)")
    parser.add_argument("--turns", type=positive, default=5, help="turns of an episode (5)")
    parser.add_argument("--repeat", type=positive, default=2, help="rounds of processes; the least of each counts (2)")
    parser.add_argument(
        "--only", nargs="*", choices=(EPISODE, TURN), default=[EPISODE, TURN], help="beside this learner"
    )
    return parser.parse_args()


def main() -> int:
    """Run each layout, print what it cost, and compare."""
    asked = arguments()
    os.environ["OMP_NUM_THREADS"] = "1"
    sizes = Sizes(asked.vocab, 0, asked.envs, asked.turns)
    print(
        f"{sizes.envs} episodes of {sizes.turns} turns, {sizes.observation} ids heard and {sizes.action} said in each;"
    )
    print(f"vocabulary {sizes.vocab:,}, 4 layers of 256, tied head; one thread\n")
    print(TITLE, flush=True)
    verdicts: list[tuple[str, bool]] = []
    costs: dict[int, tuple[float, float]] = {}
    for context in asked.context:
        shape = replace(sizes, context=context)
        results: dict[str, Result] = {}
        for _ in range(asked.repeat):
            for name in (OURS, *asked.only):
                found = alone(name, shape, results[OURS].rows if results else None)
                results[name] = least(results.get(name, found), found)
        ours = results[OURS]
        print(*table(results, context), sep="\n", flush=True)
        verdicts += [compare(f"{context:,}, {name}", results[name], ours) for name in asked.only]
        costs[context] = ours.learning[OURS].seconds, ours.rollout.seconds
    shortest, longest = min(costs), max(costs)
    learning = costs[longest][0] / costs[shortest][0]
    played = min(rollout for _, rollout in costs.values())  # without the context, so the same work each time
    whole = (costs[longest][0] + played) / (costs[shortest][0] + played)
    print(
        f"\nWith a context of {longest:,}, learning takes this learner {learning:.2f} times what it takes with {shortest:,}, "
        f"and the update with its rollout {whole:.2f} times."
    )
    if verdicts:
        print("\nThe same update, from the ids that this learner sampled?", *(text for text, _ in verdicts), sep="\n  ")
    return 0 if all(same for _, same in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
