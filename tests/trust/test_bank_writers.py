"""Several writers at once, and writers that are killed: nothing that was acknowledged is lost."""

import random
import signal
import subprocess
import sys
import time

import pytest

from experience_bank import Bank

WRITER = """
import sys
from experience_bank import Bank
from opcd_agents.types import Episode, Outcome, Provenance, Split, Task, Turn
path, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
task = Task("opcd/House-v0", {}, 0, Split.TRAIN, name, "f", 4, 6)
turns = tuple(Turn(f"seen {i}", "said", "go", 0.0, (i,), (1, 2), (-0.5, -1.0)) for i in range(8))
with Bank.open(path) as bank:
    for number in range(count):
        player = Provenance(name, "w", number, "v")
        print(bank.add_episode(Episode(task, turns, Outcome.WON, player)), flush=True)
"""


def start_writer(path, name, count):
    command = [sys.executable, "-c", WRITER, str(path), name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_lose_nothing(tmp_path):
    path = tmp_path / "bank.db"
    writers = [start_writer(path, name, 200) for name in ("a", "b")]
    said = [writer.communicate(timeout=300) for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0], said
    keys = [key for out, _ in said for key in out.split()]
    with Bank.open(path, "r") as bank:
        assert [key for key, _ in bank.episodes()] == sorted(keys)
        assert len(set(keys)) == 400
        for name in ("a", "b"):
            seeds = [episode.provenance.seed for _, episode in bank.episodes(name)]
            assert seeds == list(range(200))
        assert bank.verify() == []


def test_many_may_make_one_bank_at_once(tmp_path):
    path = tmp_path / "bank.db"
    writers = [start_writer(path, str(n), 3) for n in range(6)]
    said = [writer.communicate(timeout=300) for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * 6, said
    with Bank.open(path, "r") as bank:
        assert bank.counts()["episodes"] == 18


@pytest.mark.parametrize("seed", range(4))
def test_a_killed_writer_loses_nothing_acknowledged(tmp_path, seed):
    path = tmp_path / "bank.db"
    writer = start_writer(path, "a", 1_000_000)
    assert writer.stdout is not None
    first = writer.stdout.readline()  # so that the kill falls into writing, not into importing
    time.sleep(random.Random(seed).uniform(0.0, 0.4))
    writer.send_signal(signal.SIGKILL)
    with writer:  # not communicate(): it passes over what readline() has read ahead
        rest = writer.stdout.read()
    # The last line may have been cut while it was written.
    acknowledged = [line.strip() for line in [first, *rest.splitlines(keepends=True)] if "\n" in line]
    with Bank.open(path, "r") as bank:
        stored = {key for key, _ in bank.episodes()}
        assert set(acknowledged) <= stored
        assert len(stored) <= len(acknowledged) + 1
        assert bank.verify() == []
    with Bank.open(path) as bank:
        assert bank.verify() == []
        bank.add_lessons([])
