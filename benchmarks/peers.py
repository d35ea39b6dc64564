"""What one step of single-turn on-policy distillation costs, beside the trainers that people use: CPU seconds and memory.

A step samples 64 ids for each of 4 prompts of 128, scores them with the student and a frozen teacher of its size, and takes
one AdamW step on all weights by the reverse KL over the whole vocabulary: a random Qwen3 of 4 layers of 256 with a tied
head, float32 weights, temperature 1, one thread, 2 steps to warm up and 6 timed; passes in float32, or (`--dtype bfloat16`) in
bfloat16, where ours also plays with a bfloat16 copy. The teacher reads the same 128 + 64 ids as the
student, so all encode alike. Each candidate has a process of its own; memory is the peak of its resident set, libraries included.

* `ours`: `HuggingFacePolicy` plays, `Learner` learns.
* `distillation`, `sdft`, `gkd`: TRL's `DistillationTrainer` (chunked loss), `SDFTTrainer` (all logits) and `GKDTrainer` (all
  logits, prompts included), without the gradient checkpointing that two of them begin with and that costs more time (GKD's also
  switches off its cache of keys and values).
* `swift`: the GKD of ms-swift; its chat template adds about 10 ids to each prompt.

What flatters ours: no logging, data loading or tokenizing, which the others do in the step (a few ms), and a small model below a
large head, where sampling and loss are most of the work. What flatters the others: one turn and no context, so that neither kept
keys nor a shared prefix count. On a GPU they have kernels and vLLM, which are not measured here.

Peers have a Python of their own, made by whoever runs this; without one they are left out:

    python3 -m venv peers && peers/bin/pip install torch==2.13.0 trl==1.16.0 transformers==5.23.0 accelerate==1.15.0 peft
    python3 -m venv swift && swift/bin/pip install torch==2.13.0 ms-swift==4.6.0 msgspec trl==0.29.1 transformers==5.19.0
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys

from trainers import BATCH, CANDIDATES, LOW, NEW, OURS, PROMPT, SWIFT, measure

EXAMPLES = """examples:
  python benchmarks/peers.py --python peers/bin/python --swift swift/bin/python
  python benchmarks/peers.py --python peers/bin/python --vocabulary 32000 --repeat 3
  python benchmarks/peers.py --one ours --vocabulary 32000"""


def alone(name: str, vocabulary: int, dtype: str, python: str) -> dict[str, float]:
    """One candidate in a process of its own; its last line is its result.

    Raises:
        SystemExit: It failed; the end of what it said is shown.
    """
    command = [python, __file__, "--one", name, "--vocabulary", str(vocabulary), "--dtype", dtype]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def rounds(pythons: dict[str, str], vocabulary: int, dtype: str, repeat: int) -> dict[str, dict[str, float]]:
    """Measure in rounds, so that a busy spell of the machine meets all alike; the least of each counts."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in pythons}
    for _ in range(repeat):
        for name, python in pythons.items():
            found[name].append(alone(name, vocabulary, dtype, python))
    return {name: {key: min(one[key] for one in all_of) for key in all_of[0]} for name, all_of in found.items()}


def table(vocabulary: int, costs: dict[str, dict[str, float]]) -> list[str]:
    """Lines of the table; ratios are to the best peer in each."""
    peers = [cost for name, cost in costs.items() if name != OURS] or [costs[OURS]]
    best = {key: min(cost[key] for cost in peers) for key in ("seconds", "memory")}
    return [
        f"| {vocabulary:,} | {name} | {cost['seconds']:.2f} | {best['seconds'] / cost['seconds']:.2f} "
        f"| {BATCH * NEW / cost['seconds']:.0f} | {cost['memory']:,.0f} | {cost['memory'] / best['memory']:.2f} |"
        for name, cost in costs.items()
    ]


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="CPU seconds and memory of a step of on-policy distillation, here and in TRL.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--python", default="", help="interpreter in which TRL is installed")
    parser.add_argument("--swift", default="", help="interpreter in which ms-swift is installed")
    parser.add_argument("--vocabulary", type=int, nargs="+", default=[32_000, 151_936], help="sizes (32000 151936)")
    parser.add_argument("--dtype", choices=("float32", LOW), default="float32", help="of the passes (float32)")
    parser.add_argument("--repeat", type=int, default=2, help="rounds of processes; the least of each counts (2)")
    parser.add_argument("--one", choices=CANDIDATES, help="run this one in this process, and print JSON")
    return parser.parse_args()


def main() -> None:
    """Measure each candidate and print a table."""
    asked = arguments()
    if asked.one:
        print(json.dumps(measure(asked.one, asked.vocabulary[0], asked.dtype == LOW)))
        return
    pythons = {name: {OURS: sys.executable, SWIFT: asked.swift}.get(name, asked.python) for name in CANDIDATES}
    missing = [name for name, python in pythons.items() if not python]
    pythons = {name: python for name, python in pythons.items() if python}
    print(
        f"{BATCH} prompts of {PROMPT} ids, {NEW} new ids each, 4 layers of 256, tied head, passes in {asked.dtype}, one thread\n"
    )
    print(
        "| vocabulary | trainer | CPU s a step | best peer's s / these | new ids a CPU s | peak MiB | MiB / leanest peer's |"
    )
    print("|--:|---|--:|--:|--:|--:|--:|", flush=True)
    for vocabulary in asked.vocabulary:
        print(*table(vocabulary, rounds(pythons, vocabulary, asked.dtype, asked.repeat)), sep="\n", flush=True)
    if missing:
        print(f"\nleft out, for want of an interpreter in which they are installed: {', '.join(missing)}")


if __name__ == "__main__":
    main()
