"""What one loss costs, from hidden states to the gradients of hidden states and head: CPU seconds and memory.

Reverse KL of 1,024 rows of 256 between two random models, at two vocabularies, on one thread:

* `dense`: logits of all rows, log-softmax and the sum over the vocabulary, with autograd (the formula of GKD).
* `ours`: `opcd_agents.learner.fused`, the student's head trained; `ours, general`: the same by way of `Divergence`;
  `ours, head frozen`: as with LoRA.
* `Liger`: `LigerFusedLinearJSDLoss`, uncompiled, in chunks of 256 rows; `Liger, chunk 1024`: its default.
* `TRL`: `ChunkedDivergenceFunction`.

Liger (`pip install --no-deps liger-kernel`) and TRL are left out where they are not installed. Each loss runs in processes
of its own; memory is the peak of the resident set above what the process had when models and rows stood, gradients
included, read from Linux's /proc. The gradient is compared with the dense formula's in float64; the program ends with exit
code 1 where one of ours is further off than 1e-5.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor

from opcd_agents.learner.fused import fused
from opcd_agents.learner.objectives import Divergence, Objective, ReverseKL
from opcd_agents.learner.saying import Heard

ROWS, SIZE, TOLERANCE = 1024, 256, 1e-5
LIGER = "Liger"
EXAMPLES = """examples:
  python benchmarks/loss.py
  python benchmarks/loss.py --vocab 32000 --repeat 5"""


@dataclass(frozen=True)
class Case:
    """Hidden states and heads of two models; `said` is read by none of the losses, but wanted by some."""

    hidden: Tensor
    head: Tensor
    teacher_hidden: Tensor
    teacher_head: Tensor
    said: Tensor

    @staticmethod
    def random(vocabulary: int, rows: int, *, frozen: bool = False) -> Case:
        """The same in every process; the logits' spread is 3, and the models differ by about 1 nat."""
        chance = torch.Generator().manual_seed(0)
        hidden = torch.randn(rows, SIZE, generator=chance)
        head = torch.randn(vocabulary, SIZE, generator=chance).mul_(3 / SIZE**0.5)
        theirs = hidden + 0.3 * torch.randn(rows, SIZE, generator=chance)
        said = torch.randint(vocabulary, (rows,), generator=chance)
        noise = torch.randn(vocabulary, SIZE, generator=chance).mul_(1 / SIZE**0.5)
        return Case(hidden.requires_grad_(), head.requires_grad_(not frozen), theirs, noise.add_(head.detach()), said)


Loss = Callable[[Case], Tensor]


@dataclass(frozen=True)
class Cost:
    """What a loss took: CPU seconds, MiB above the base, and the gradient's relative error where it was checked."""

    seconds: float
    memory: float
    error: float


def dense(case: Case) -> Tensor:
    """The mean reverse KL by the formula of GKD."""
    p = torch.log_softmax(case.hidden @ case.head.T, -1)
    with torch.no_grad():
        q = torch.log_softmax(case.teacher_hidden @ case.teacher_head.T, -1)
    return torch.nn.functional.kl_div(q, p, reduction="sum", log_target=True) / len(p)


def ours(objective: Objective) -> Loss:
    """An objective of this project."""

    def loss(case: Case) -> Tensor:
        weights = torch.full((len(case.hidden),), 1 / len(case.hidden))
        theirs = Heard.of(case.teacher_hidden, case.teacher_head)
        return fused(objective, case.hidden, case.head, theirs, case.said, weights).loss

    return loss


def liger(chunk: int) -> Loss:
    """Liger's loss; beta = 1 is its KL(student || teacher), which the error against `dense` confirms."""

    def loss(case: Case) -> Tensor:
        from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

        jsd = LigerFusedLinearJSDLoss(
            weight_hard_loss=0.0, weight_soft_loss=1.0, beta=1.0, compiled=False, chunk_size=chunk
        )
        return jsd(case.hidden, case.head, case.teacher_hidden, case.teacher_head, case.said)

    return loss


def trl(case: Case) -> Tensor:
    """TRL's loss."""
    from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

    models = (case.hidden, case.head, None, case.teacher_hidden, case.teacher_head, None)
    divergence, _entropy = ChunkedDivergenceFunction.apply(*models, 1.0)
    return divergence.mean()


LOSSES: dict[str, Loss] = {
    "ours": ours(ReverseKL()),
    "ours, general": ours(Divergence()),
    "ours, head frozen": ours(ReverseKL()),
    LIGER: liger(256),
    "Liger, chunk 1024": liger(1024),
    "TRL": trl,
    "dense": dense,
}
NEEDS = {LIGER: "liger_kernel", "Liger, chunk 1024": "liger_kernel", "TRL": "trl"}


def measure(name: str, vocabulary: int, check: bool) -> Cost:
    """Time a loss and its backward pass, and take its memory; meant to have a process of its own."""
    torch.set_num_threads(1)
    frozen = "frozen" in name
    case, small = (Case.random(v, n, frozen=frozen) for v, n in ((vocabulary, ROWS), (100, 16)))
    LOSSES[name](small).backward()  # what torch and the peers load once
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    base, seconds = resident("VmRSS"), []
    for _ in range(2):  # the first also asks the system for memory
        case.hidden.grad = case.head.grad = None
        began = time.process_time()
        LOSSES[name](case).backward()
        seconds.append(time.process_time() - began)
    return Cost(min(seconds), resident("VmHWM") - base, error(case) if check else 0.0)


def resident(key: str) -> float:
    """Resident memory of this process in MiB: `VmRSS` now, `VmHWM` at its peak."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{key}:")[1].split()[0]) / 1024


def error(case: Case, part: int = 64) -> float:
    """Largest relative error in norm of the gradients of hidden states and head, against the dense formula in float64."""
    head, theirs = case.head.detach().double(), case.teacher_head.double()
    d_hidden, d_head = torch.empty_like(case.hidden, dtype=torch.float64), torch.zeros_like(head)
    for rows in torch.arange(len(case.hidden)).split(part):
        hidden = case.hidden.detach()[rows].double()
        p = torch.log_softmax(hidden @ head.T, -1)
        ratio = p - torch.log_softmax(case.teacher_hidden[rows].double() @ theirs.T, -1)
        weighted = p.exp_() / len(case.hidden)
        slopes = weighted * (ratio - (weighted * ratio).sum(-1, keepdim=True) * len(case.hidden))
        d_hidden[rows] = slopes @ head
        d_head.addmm_(slopes.T, hidden)
    pairs = ((case.hidden.grad, d_hidden), (case.head.grad, d_head))
    return max(float((got - wanted).norm() / wanted.norm()) for got, wanted in pairs if got is not None)


def rounds(names: Sequence[str], vocabulary: int, repeat: int) -> dict[str, Cost]:
    """Measure in rounds, so that a busy spell of the machine meets all alike; the least of each counts."""
    found: dict[str, list[Cost]] = {name: [] for name in names}
    for turn in range(repeat):
        for name in names:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:  # no loss's memory is another's
                found[name].append(pool.submit(measure, name, vocabulary, turn == 0).result())
    return {
        name: Cost(min(c.seconds for c in costs), min(c.memory for c in costs), costs[0].error)
        for name, costs in found.items()
    }


def line(name: str, vocabulary: int, cost: Cost, base: Cost | None) -> str:
    """A row of the table; ratios are to Liger."""
    ratios = f"{cost.seconds / base.seconds:.2f} | {cost.memory / base.memory:.2f}" if base else "- | -"
    return f"| {name} | {vocabulary:,} | {cost.seconds:.2f} | {cost.memory:,.0f} | {ratios} | {cost.error:.0e} |"


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="CPU seconds and memory of one loss and its gradients.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--vocab", type=int, nargs="+", default=[32_000, 151_936], help="vocabularies (32000 and 151936)"
    )
    parser.add_argument("--repeat", type=int, default=2, help="rounds of two runs of each; the fastest run counts (2)")
    parser.add_argument("--only", nargs="+", choices=LOSSES, default=list(LOSSES), metavar="LOSS", help="some of them")
    return parser.parse_args()


def main() -> int:
    """Measure each loss and print a table."""
    asked = arguments()
    os.environ["OMP_NUM_THREADS"] = "1"
    print(f"{ROWS:,} rows of {SIZE}, float32, one thread; best of {2 * asked.repeat} runs; ratios to Liger's\n")
    print("| loss | vocabulary | CPU s | MiB | CPU, ratio | MiB, ratio | gradient off by |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    worst = 0.0
    there = [name for name in asked.only if name not in NEEDS or importlib.util.find_spec(NEEDS[name])]
    for vocabulary in asked.vocab:
        costs = rounds(there, vocabulary, asked.repeat)
        for name, cost in costs.items():
            print(line(name, vocabulary, cost, costs.get(LIGER)), flush=True)
        worst = max(worst, *(cost.error for name, cost in costs.items() if name.startswith("ours")), 0.0)
    return 0 if worst <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
