"""What one multi-turn update costs in three layouts of the same rows: seconds, tokens, head rows, memory.

`this learner` plays with its keys and values kept across turns, encodes one row an episode and the context once for all,
projects only what predicts a sampled id, and never holds [rows, vocabulary]. The two others are restated in plain torch:

* `episode row`: one row an episode, the context encoded in each teacher row, logits [B, T, V] of both models for the whole
  completion, observations included, as single-turn trainers do (T: from the first reply on).
* `row per turn`: each turn a row of its own with all that came before it, the context encoded in each, every id through
  both heads, as LMOps does; one row a pass, which is kindest to its memory.

Both encode their whole history again at each turn of the rollout. All learn from the same sampled ids, with the exact
reverse KL over the whole vocabulary, so loss and gradient must agree: the program ends with exit code 1 where they do not.
The models are random: this measures work, not learning. Each layout runs in a process of its own, on one thread,
and its memory is read from Linux's /proc.
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
import os
import re
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from opcd_agents.learner.learner import Learner
from opcd_agents.learner.objectives import ReverseKL
from opcd_agents.policies.huggingface import HuggingFacePolicy
from opcd_agents.render import Renderer
from opcd_agents.types import Example, Info, Reply, Session, Tokens, Turn

OURS, FIRST, EPISODE, TURN = "this learner", "  with its context prefill", "episode row", "row per turn"
TOLERANCE = 1e-4  # of the loss, and of the largest gradient: float32 sums in another order
EXAMPLES = """examples:
  python benchmarks/update.py
  python benchmarks/update.py --context 4096
  python benchmarks/update.py --vocab 4000 --context 256 --envs 4 --turns 3    (seconds)"""


@dataclass(frozen=True)
class Sizes:
    """Shape of the update. `observation` and `action` are ids a turn."""

    vocab: int
    context: int
    envs: int
    turns: int
    observation: int = 40
    action: int = 24


@dataclass
class Work:
    """What one phase cost: CPU seconds, ids encoded by each model, rows projected to the vocabulary by both."""

    seconds: float = 0.0
    student: int = 0
    teacher: int = 0
    head: int = 0


@dataclass(frozen=True)
class Result:
    """One layout's update. `rows` are what was played, `peak` is the growth of resident memory in MiB."""

    rollout: Work
    learning: dict[str, Work]
    peak: float
    loss: float
    gradient: np.ndarray = field(repr=False)
    rows: list[Tokens] = field(repr=False)


class IdText:
    """A renderer whose texts are ids in decimals: every length is exact, and no reply ends early."""

    end_id = -1
    history = "append"

    def opening(self, context: str | None, observation: str) -> list[int]:
        """Ids of the context and of the first observation."""
        return [int(i) for i in f"{context or ''} {observation}".split()]

    def following(self, sampled: Sequence[int], observation: str) -> list[int]:
        """Ids of a later observation."""
        return self.opening(None, observation)

    def text(self, sampled: Sequence[int]) -> str:
        """Ids as text."""
        return " ".join(map(str, sampled))


class Forgetful:
    """A session that keeps nothing but text, as behind a chat endpoint: each turn encodes the whole history again."""

    def __init__(self, policy: HuggingFacePolicy, seeds: Sequence[int]) -> None:
        self._policy = policy
        self._chance: list[Any] = [np.random.default_rng(seed) for seed in seeds]
        self._history = ["" for _ in seeds]

    def reply(self, heard: Mapping[int, tuple[str, Info]]) -> dict[int, Reply]:
        """Answer each slot's observation."""
        whole = {slot: (f"{self._history[slot]} {text}", info) for slot, (text, info) in heard.items()}
        replies = self._policy.begin(None, self._chance).reply(whole)  # a generator as seed goes on where it stood
        for slot, reply in replies.items():
            self._history[slot] = f"{whole[slot][0]} {reply.text}"
        return replies


class Meter:
    """Counts what two models do while a phase runs."""

    def __init__(self, student: PreTrainedModel, teacher: PreTrainedModel) -> None:
        self._work = Work()
        for side, network in (("student", student), ("teacher", teacher)):
            network.get_decoder().register_forward_pre_hook(partial(self._encode, side), with_kwargs=True)
            network.get_output_embeddings().register_forward_pre_hook(lambda _, args: self.project(args[0]))

    @contextmanager
    def phase(self) -> Generator[Work]:
        """Measure a phase; what it cost is known when it ends."""
        self._work = work = Work()
        began = time.process_time()
        yield work
        work.seconds = time.process_time() - began

    def project(self, rows: Tensor) -> None:
        """Count rows of a head; the last dimension is the row."""
        self._work.head += rows.numel() // rows.shape[-1]

    def _encode(self, side: str, _module: torch.nn.Module, _args: tuple[()], named: dict[str, Any]) -> None:
        setattr(self._work, side, getattr(self._work, side) + named["input_ids"].numel())


class MeteredReverseKL:
    """The objective, counting the rows it is shown: the fused loss projects without calling a head."""

    needs_teacher = True

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._formula = ReverseKL()

    def __call__(self, student: Tensor, teacher: Tensor | None, said: Tensor) -> tuple[Tensor, Tensor]:
        """See `Objective`."""
        assert teacher is not None
        self._meter.project(student)
        self._meter.project(teacher)
        return self._formula(student, teacher, said)


class Updater(Protocol):
    """What is compared: one optimiser step on examples."""

    def update(self, examples: Sequence[Example]) -> float:
        """Learn from the examples; returns the mean loss of a sampled id in nats."""
        ...


class Ours:
    """This project's learner. The rate is 0, so that a second update is the first one over again."""

    def __init__(self, student: PreTrainedModel, teacher: PreTrainedModel, meter: Meter) -> None:
        self._learner = Learner(student, teacher, MeteredReverseKL(meter), lr=0.0, clip=1e9)

    def update(self, examples: Sequence[Example]) -> float:
        """See `Updater`."""
        return self._learner.update(examples).loss


class Dense:
    """A restated layout: passes of rows through both models and heads.

    Args:
        student: The model to train.
        teacher: The frozen model.
        passes: Cuts the episodes into the rows of each pass.
        every: Whether all positions go through the heads, or those from the first sampled id on.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        teacher: PreTrainedModel,
        passes: Callable[[Sequence[Example]], Iterable[Sequence[Example]]],
        every: bool,
    ) -> None:
        self._student, self._teacher = student, teacher
        self._passes, self._every = passes, every
        self._optimizer = torch.optim.AdamW(student.parameters(), lr=0.0, betas=(0.9, 0.98), weight_decay=0.0)

    def update(self, examples: Sequence[Example]) -> float:
        """See `Updater`."""
        self._optimizer.zero_grad(set_to_none=True)
        count = sum(len(e.student.said) for e in examples)
        total = 0.0
        for part in self._passes(examples):
            loss = self._kl(part) / count
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(self._student.parameters(), 1e9)
        self._optimizer.step()
        return total

    def _kl(self, examples: Sequence[Example]) -> Tensor:
        ours = self._logprobs(self._student, [e.student for e in examples])
        with torch.no_grad():
            theirs = self._logprobs(self._teacher, [e.teacher for e in examples])
        return (ours.exp() * (ours - theirs)).sum()

    def _logprobs(self, network: PreTrainedModel, rows: Sequence[Tokens]) -> Tensor:
        """Log-probabilities [sampled ids, vocabulary], by way of all of the pass's logits [B, T, V]."""
        first = 1 if self._every else rows[0].sampled.index(True)
        ids = torch.tensor([row.ids for row in rows])
        sampled = torch.tensor([row.sampled[first:] for row in rows])
        logits = network(input_ids=ids, logits_to_keep=sampled.shape[1] + 1, use_cache=False).logits
        return torch.log_softmax(logits[:, :-1], -1)[sampled]


def turn_rows(examples: Sequence[Example]) -> Iterator[list[Example]]:
    """Each turn as a pass of its own: the row up to its end, in which only its reply is learnt."""
    for example in examples:
        yield from ([Example(*pair)] for pair in zip(cuts(example.student), cuts(example.teacher), strict=True))


def cuts(row: Tokens) -> Iterator[Tokens]:
    """A row for each reply in a row."""
    flags = bytes(row.sampled)
    for reply in re.finditer(b"\x01+", flags):
        start, end = reply.span()
        yield Tokens(row.ids[:end], (False,) * start + (True,) * (end - start))


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
    examples = [pair(row, context) for row in rows or played]
    learning: dict[str, Work] = {}
    loss = 0.0
    for name in (FIRST, OURS) if layout == OURS else (layout,):  # the second update finds the context encoded
        with meter.phase() as learning[name]:
            loss = updater.update(examples)
    peak = resident("VmHWM") - settled
    gradient = torch.cat([p.grad.flatten() for p in student.parameters() if p.grad is not None])
    return Result(rollout, learning, peak, loss, gradient.numpy(), played)


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


HEAD = f"{'':26}|{'rollout':^24}|{'learning':^36}|{'update':^16}|{'peak':>6}"
NAMES = (
    f"{'layout':26}|{'CPU s':>7}{'tokens':>8}{'head':>8} |{'CPU s':>7}{'student':>9}{'teacher':>9}{'head':>9} "
    f" |{'CPU s':>8}{'times':>7} |{'MiB':>6}"
)


def line(name: str, rollout: Work, learning: Work, base: float, peak: float) -> str:
    """One line of the table; `base` is what `this learner` takes."""
    step = rollout.seconds + learning.seconds
    return (
        f"{name:26}|{rollout.seconds:7.2f}{rollout.student:8,}{rollout.head:8,} |"
        f"{learning.seconds:7.2f}{learning.student:9,}{learning.teacher:9,}{learning.head:9,}  |"
        f"{step:8.2f}{step / base:7.1f} |{peak:6,.0f}"
    )


def work_ratios(name: str, other: Result, ours: Result) -> str:
    """How many times the work of `this learner` a layout does."""
    mine, theirs = ours.learning[OURS], other.learning[name]
    encoded = (theirs.student + theirs.teacher) / (mine.student + mine.teacher)
    return (
        f"{name}: rollout {other.rollout.student / ours.rollout.student:.1f} times the tokens; "
        f"learning {theirs.seconds / mine.seconds:.1f} times the seconds, {encoded:.1f} times the tokens, "
        f"{theirs.head / mine.head:.1f} times the head rows; {other.peak / ours.peak:.1f} times the peak memory"
    )


def compare(name: str, other: Result, ours: Result) -> tuple[str, bool]:
    """Whether a layout computed the same thing, and by how much it differs."""
    loss = abs(other.loss - ours.loss)
    worst = float(np.abs(other.gradient - ours.gradient).max())
    largest = float(np.abs(ours.gradient).max())
    same = loss <= TOLERANCE * abs(ours.loss) and worst <= TOLERANCE * largest
    text = f"loss differs by {loss:.1e} of {ours.loss:.6f}, gradient by at most {worst:.1e} (largest {largest:.1e})"
    return f"{name}: {text}{'' if same else '  <- NOT THE SAME'}", same


def alike(other: Result, ours: Result) -> str:
    """How many ids two rollouts sampled alike; near a border between two ids, rounding decides."""
    mine, theirs = ([i for row in result.rows for i in row.said] for result in (ours, other))
    same = sum(a == b for a, b in zip(mine, theirs, strict=True))
    return (
        f"rollouts: {same} of {len(mine)} ids sampled alike; rounding may turn one, and with it the rest of its episode"
    )


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"wanted a whole number of at least 1, got {text!r}")
    return int(text)


def arguments() -> Sizes:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="CPU seconds, tokens, head rows and memory of one multi-turn update, in three layouts.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--vocab", type=positive, default=32_000, help="size of the vocabulary (32000)")
    parser.add_argument("--context", type=positive, default=1024, help="ids of the teacher's context (1024)")
    parser.add_argument("--envs", type=positive, default=8, help="episodes of the update (8)")
    parser.add_argument("--turns", type=positive, default=5, help="turns of an episode (5)")
    return Sizes(**vars(parser.parse_args()))


def main() -> int:
    """Run each layout, print what it cost, and compare."""
    sizes = arguments()
    os.environ["OMP_NUM_THREADS"] = "1"
    print(
        f"{sizes.envs} episodes of {sizes.turns} turns, {sizes.observation} ids heard and {sizes.action} said in each;",
        end=" ",
    )
    print(f"context {sizes.context:,}, vocabulary {sizes.vocab:,}, 4 layers of 256, tied head; one thread\n")
    print(HEAD, NAMES, sep="\n", flush=True)
    ours = alone(OURS, sizes, None)
    base = ours.rollout.seconds + ours.learning[OURS].seconds
    others: dict[str, Result] = {}
    for name in (OURS, FIRST):
        print(line(name, ours.rollout, ours.learning[name], base, ours.peak), flush=True)
    for name in (EPISODE, TURN):
        others[name] = alone(name, sizes, ours.rows)
        print(line(name, others[name].rollout, others[name].learning[name], base, others[name].peak), flush=True)
    print("\nAgainst this learner:", *(work_ratios(name, other, ours) for name, other in others.items()), sep="\n  ")
    verdicts = [compare(name, other, ours) for name, other in others.items()]
    print("\nThe same update, from the ids that this learner sampled?", *(text for text, _ in verdicts), sep="\n  ")
    print(f"  {alike(others[TURN], ours)}")
    return 0 if all(same for _, same in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
