"""What one draw from a batch of logits costs: CPU milliseconds on one thread, as a Markdown table.

`draw` is this project's two-level inverse CDF, and also gives the log-probability of what it drew. The others only draw:
`multinomial` is torch's `softmax` and `multinomial`, as `generate()` samples; `Categorical` is `torch.distributions`;
`Gumbel` is argmax(logits + Gumbel noise). Each is handed fresh logits, whose copying is not counted; the least of several
rounds is shown, for noise on a shared machine only adds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from opcd_agents.policies.sampling import draw

SHAPES = ((32_000, 4), (32_000, 32), (151_936, 4), (151_936, 32))
ROUNDS = 7


def multinomial(logits: Tensor) -> Tensor:
    """As `generate()` samples."""
    return torch.multinomial(torch.softmax(logits, -1), 1)[:, 0]


def categorical(logits: Tensor) -> Tensor:
    """As `torch.distributions` samples."""
    return torch.distributions.Categorical(logits=logits).sample()


def gumbel(logits: Tensor) -> Tensor:
    """The likeliest after noise."""
    return logits.add_(torch.empty_like(logits).exponential_().log_().neg_()).argmax(-1)


def ours(temperature: float) -> Callable[[Tensor], Tensor]:
    """This project's way."""
    return lambda logits: draw(logits, temperature, torch.rand(len(logits), dtype=torch.double))[0]


METHODS: dict[str, Callable[[Tensor], Tensor]] = {
    "draw": ours(1.0),
    "draw at 0.7": ours(0.7),
    "multinomial": multinomial,
    "Categorical": categorical,
    "Gumbel": gumbel,
}


def cost(method: Callable[[Tensor], object], logits: Tensor, calls: int) -> float:
    """CPU milliseconds of one call on fresh logits, the copy included."""
    fresh = torch.empty_like(logits)
    rounds: list[float] = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(calls):
            method(fresh.copy_(logits))
        rounds.append((time.process_time() - began) / calls * 1e3)
    return min(rounds)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="CPU milliseconds of one draw, as a Markdown table.")
    parser.add_argument("--calls", type=int, default=20, help="calls in each round (20)")
    calls = parser.parse_args().calls
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print("|vocabulary|rows|" + "|".join(f"{name}, ms" for name in METHODS) + "|multinomial / draw|")
    print("|-" * (len(METHODS) + 3) + "|")
    for vocabulary, rows in SHAPES:
        logits = torch.randn(rows, vocabulary) * 3
        copying = cost(lambda fresh: fresh, logits, calls)
        each = {name: cost(method, logits, calls) - copying for name, method in METHODS.items()}
        cells = "|".join(f"{ms:.2f}" for ms in each.values())
        print(f"|{vocabulary:,}|{rows}|{cells}|{each['multinomial'] / each['draw']:.1f}|", flush=True)


if __name__ == "__main__":
    main()
