"""A run that is stopped anywhere, by an exception or by kill -9, ends in the same bytes as one that never was.

Compared are weights, the best weights, optimiser, state, metrics and with them every sampled id (`sampled_in_all`, losses).
`make test` kills a few times, `make trust` (OPCD_TRUST=full) a hundred.
"""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FULL = os.environ.get("OPCD_TRUST") == "full"
STEPS = list(range(1, 31)) if FULL else [1, 5, 14, 29]
KILLS = 100 if FULL else 3

PROGRAM = """
import json, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from opcd_agents.learner import distill as module
from opcd_agents.learner.contexts import Fixed
from opcd_agents.policies.huggingface import HuggingFacePolicy
from opcd_agents.pocket.tokens import train_tokenizer
from opcd_agents.recipe import Recipe
from opcd_agents.render import Renderer
from opcd_agents.runs import RunFolder
from tests.learner.conftest import TEXTS, tiny
from tests.learner.test_distill import CONTEXT, TASKS, PlainHouse

folder, every, stop = Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
module._UPDATES = every
tokenizer = train_tokenizer(TEXTS, 400)
recipe = Recipe(updates=30, episodes=4, lr=1e-3, longest=4, validate=5, validation_episodes=2, pull=0.01, teacher="ema", temperature=1.0)
subject = module.Subject(TASKS[:4], TASKS[4:], PlainHouse, Fixed(CONTEXT))


def run(folder, resume, stop=None):
    def watch(line):
        if line["update"] == stop:
            raise KeyboardInterrupt
        print(line["update"], flush=True)

    policy = HuggingFacePolicy(tiny(len(tokenizer)), Renderer(tokenizer), "tiny")
    where = RunFolder.open(folder) if resume else RunFolder.create(folder, {})
    try:
        module.distill(policy, subject, recipe, where, seed=7, resume=resume, watch=watch)
    except KeyboardInterrupt:
        pass


if stop:
    run(folder / "straight", False)
    for step in stop:
        run(folder / f"at-{step}", False, step)
        run(folder / f"at-{step}", True)
else:
    run(folder, (folder / "config.json").exists())
"""


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
    return found | {"state": state, "metrics": lines}


def command(folder, every, stop):
    return [sys.executable, "-c", PROGRAM, str(folder), str(every), json.dumps(stop)]


@pytest.mark.parametrize("every", [1, 10])
def test_from_every_step(tmp_path, every):
    subprocess.run(command(tmp_path, every, STEPS), cwd=ROOT, check=True, capture_output=True, timeout=500)
    straight = digests(tmp_path / "straight")
    assert len(straight["metrics"]) == 30
    for step in STEPS:
        assert digests(tmp_path / f"at-{step}") == straight, step


def test_after_kills(tmp_path):
    """Kills fall anywhere, also into the writing of a checkpoint; several may hit one run."""
    subprocess.run(command(tmp_path / "straight", 1, None), cwd=ROOT, check=True, capture_output=True, timeout=300)
    straight = digests(tmp_path / "straight")
    chance = random.Random(5)
    kills = number = 0
    while kills < KILLS:
        number += 1
        folder = tmp_path / f"run-{number}"
        for _ in range(chance.randint(1, 5)):
            kills += killed(folder, chance)
        subprocess.run(command(folder, 1, None), cwd=ROOT, check=True, capture_output=True, timeout=300)
        assert digests(folder) == straight, number


def killed(folder, chance):
    """Start or resume a run and kill it some milliseconds after some update; whether there was anything left to kill."""
    with subprocess.Popen(
        command(folder, 1, None), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as running:
        assert running.stdout is not None
        for _ in range(chance.randint(1, 12)):
            if not running.stdout.readline():
                return False
        time.sleep(chance.random() * 0.06)
        running.send_signal(signal.SIGKILL)
    return running.returncode == -signal.SIGKILL
