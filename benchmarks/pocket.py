"""Scores of a pocket model as it comes: fresh houses and held-out operators, with notes and without.

    python benchmarks/pocket.py --model pocket --houses 10

The notes of a house are what `opcd collect` and `opcd bank context` make of the model's own training episodes; the
scores are on test tasks, sampled at temperature 1. Prints a row a house, then the averages with Wilson intervals.
"""

import argparse
import json
from collections.abc import Sequence

from cli import models, workflow
from cli.console import say, say_table
from opcd_agents.policies.huggingface import HuggingFacePolicy
from opcd_agents.scores import score, tally
from opcd_agents.types import Score, Split

FIRST = 500  # seeds of the houses; not those of the README's table


def house_scores(policy: HuggingFacePolicy, seed: int, episodes: int) -> tuple[Score, Score]:
    """Scores of one house on test tasks: with notes, without."""
    world = workflow.house_world(policy, seed, Split.TEST, starts=8, episodes=128)
    informed = workflow.gather(policy, world.tasks, episodes, seed=seed, context=world.context)
    bare = workflow.gather(policy, world.tasks, episodes, seed=seed)
    return score(informed), score(bare)


def operator_scores(policy: HuggingFacePolicy, count: int, episodes: int) -> tuple[Score, Score]:
    """Scores over held-out operators: with the definition, without."""
    worlds = [workflow.operator_world(FIRST + i, True, policy.renderer.count) for i in range(count)]
    informed = workflow.play_worlds(policy, worlds, episodes, FIRST)
    bare = [e for w in worlds for e in workflow.gather(policy, w.tasks, episodes, seed=FIRST)]
    return score(informed), score(bare)


def pooled(scores: Sequence[Score]) -> Score:
    """All episodes of several scores together."""
    return tally({str(i): (s.wins, s.episodes) for i, s in enumerate(scores)})


def main() -> None:
    """Read the command line, play, print."""
    parser = argparse.ArgumentParser(description="Scores of a pocket model with notes and without.")
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--houses", type=int, default=10)
    parser.add_argument("--operators", type=int, default=10)
    parser.add_argument("--episodes", type=int, default=64, help="of each score of a house; half of it an operator")
    args = parser.parse_args()
    policy = models.policy(args.model)
    seeds = range(FIRST, FIRST + args.houses)
    houses = {seed: house_scores(policy, seed, args.episodes) for seed in seeds}
    rows = [(f"house:{seed}", *(f"{s.rate:.1%}" for s in pair)) for seed, pair in houses.items()]
    say_table(("", "with notes>", "without>"), rows)
    operators = operator_scores(policy, args.operators, args.episodes // 2)
    found = {"houses": [pooled(s) for s in zip(*houses.values(), strict=True)], "operators": operators}
    for name, (informed, bare) in found.items():
        say(
            f"{name}: with {informed.rate:.1%} ({informed.low:.1%} to {informed.high:.1%}, {informed.episodes} episodes), "
        )
        say(f"{' ' * len(name)}  without {bare.rate:.1%} ({bare.low:.1%} to {bare.high:.1%})")
    print(json.dumps({name: [workflow.score_data(s) for s in pair] for name, pair in found.items()}))


if __name__ == "__main__":
    main()
