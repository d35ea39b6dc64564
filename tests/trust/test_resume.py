"""A run that is stopped anywhere, by an exception, by kill -9 or by a full disk, ends in the same bytes as one that never was.

Compared are weights, the best weights, optimiser, who follows them, state, metrics with the digest of every sampled id, and the
generators of chance. `make test` kills a few times, `make trust` (OPCD_TRUST=full) a hundred.
"""

import hashlib
import json
import multiprocessing
import os
import random
import signal
import time

import pytest

from . import resumable

FULL = os.environ.get("OPCD_TRUST") == "full"
STEPS = list(range(1, 31)) if FULL else [1, 5, 14, 29]
KILLS = 100 if FULL else 5
DISKS = 50 if FULL else 5

PROCESSES = multiprocessing.get_context("forkserver")  # imports what is needed once, not once a kill
PROCESSES.set_forkserver_preload([resumable.__name__])


def digests(folder):
    """sha256 of everything that a run leaves, but for the seconds it took."""
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (folder / "checkpoint").glob("*.safetensors")
    }
    state = json.loads((folder / "checkpoint" / "state.json").read_text())
    state["state"].pop("seconds")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("seconds")
    return found | {"state": state, "metrics": lines, "chance": (folder / "chance.json").read_text()}


def done(target, *args):
    """Run to the end in a process of its own; its exit code."""
    process = PROCESSES.Process(target=target, args=args)
    process.start()
    process.join(500)
    assert process.exitcode is not None
    return process.exitcode


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """What a run leaves that is never stopped."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    assert done(resumable.run, folder) == 0
    found = digests(folder)
    assert len(found["metrics"]) == 30
    assert all("ids" in line for line in found["metrics"])
    assert json.loads(found["chance"])["untouched"]
    return found


@pytest.mark.parametrize("every", [1, 10])
def test_from_every_step(tmp_path, straight, every):
    assert done(resumable.run_all, tmp_path, every, STEPS) == 0
    for folder in sorted(tmp_path.iterdir()):
        assert digests(folder) == straight, folder.name


def test_after_kills(tmp_path, straight):
    """Kills fall anywhere, also into the writing of a checkpoint; several may hit one run."""
    chance = random.Random(5)
    kills = number = 0
    while kills < KILLS:
        number += 1
        folder = tmp_path / f"run-{number}"
        for _ in range(chance.randint(1, 5)):
            kills += killed(folder, chance)
        assert done(resumable.run, folder) == 0, number
        assert digests(folder) == straight, number


def killed(folder, chance):
    """Start or resume a run and kill it some milliseconds after some update; whether there was anything left to kill."""
    mine, theirs = PROCESSES.Pipe(duplex=False)
    running = PROCESSES.Process(target=resumable.run, args=(folder, 1, 0, 0, theirs))
    running.start()
    theirs.close()
    try:
        for _ in range(chance.randint(1, 12)):
            mine.recv()
        time.sleep(chance.random() * 0.06)
    except EOFError:
        pass  # it was over before
    running.kill()
    running.join()
    return running.exitcode == -signal.SIGKILL


def test_after_full_disks(tmp_path, straight):
    """The disk is full at some byte of some file; once there is room again, the run goes on."""
    chance = random.Random(5)
    full = number = 0
    while full < DISKS:
        number += 1
        folder = tmp_path / f"run-{number}"
        for _ in range(chance.randint(1, 3)):
            full += done(resumable.run, folder, 1, 0, chance.randint(1, 4_000_000)) == 9
        assert done(resumable.run, folder) == 0, number
        assert digests(folder) == straight, number
