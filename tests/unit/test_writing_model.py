"""A real model as the writer: the pocket model, which can play but cannot write, so all it says comes back as failed."""

from pathlib import Path

import pytest

import opcd_agents
from experience_bank import Bank
from experience_bank.writing import (
    Writer,
    apply,
    rollout_groups,
    write_chains,
    write_critiques,
    write_operations,
)
from opcd_agents.policies.huggingface import HuggingFacePolicy
from opcd_agents.policies.loading import load
from opcd_agents.types import Episode, Outcome, Provenance, Split, Task, Turn

POCKET = Path(opcd_agents.__path__[0]) / "pocket" / "weights" / "pocket"
SEEN = [
    "Find the coin and take it.\n-= Hall =-\nThere is a closed crate here. Exits: Cellar south.",
    "You open the crate, revealing a coin.\n-= Hall =-\nThere is an open crate with a coin.",
]


def episode(outcome):
    task = Task("opcd/House-v0", {}, 0, Split.TRAIN, "house/7", "ab" * 32, 2, 9)
    turns = tuple(Turn(seen, f"> {said}", said) for seen, said in zip(SEEN, ("open crate", "take coin"), strict=True))
    return Episode(task, turns, outcome, Provenance("pocket", "", 0, ""), "You take the coin from the crate.")


@pytest.fixture(scope="module")
def loaded():
    return load(str(POCKET))


def writer_of(loaded, temperature):
    network, renderer = loaded
    return Writer(HuggingFacePolicy(network, renderer, "pocket", temperature, longest=8), renderer.count, 3500, 200)


@pytest.mark.parametrize("temperature", [1.0, 50.0])  # it ends its reply at once; it babbles
def test_what_the_pocket_model_says_is_kept_as_failed_batches(loaded, tmp_path, temperature):
    writer = writer_of(loaded, temperature)
    with Bank.open(tmp_path / "bank.db") as bank:
        keys = bank.add_episodes([episode(Outcome.WON), episode(Outcome.LOST)])
        known = [bank.episode(key) for key in keys]
        batches = [
            *write_chains(writer, known, seeds=[1, 2], steps=1, previous=True),
            *write_operations(writer, [known]),
            *write_critiques(writer, rollout_groups(known)),
        ]
        assert len(batches) == 4
        assert all(batch.failed and batch.prompt and not batch.deltas for batch in batches)
        assert all(writer.count_tokens(batch.prompt) <= writer.budget for batch in batches)
        assert temperature == 1.0 or len({batch.raw for batch in batches}) == 4  # each has its own stream of chance
        assert apply(bank, [delta for batch in batches for delta in batch.deltas]).lessons == ()
        assert bank.counts()["lessons"] == 0
