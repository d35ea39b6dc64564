"""A thousand damaged games (a part of them in `make test`) and a thousand random replies: the process that plays them survives, and keeps nothing.

Each part is played by a process of its own, with a deadline: an endless loop in C could not be stopped in this one.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import envs

ROOT = Path(envs.__file__).parent.parent
FULL = os.environ.get("OPCD_TRUST") == "full"
STORIES, DESCRIPTIONS, FOREIGN = (840, 100, 60) if FULL else (210, 50, 20)  # a thousand together in `make trust`

DAMAGE = """
import json, os, sys, time
from pathlib import Path
import numpy as np
import envs
from envs import jericho_env, textworld_env
from opcd_agents.errors import OpcdError

kind, count, game = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
jericho_env._DEADLINE = jericho_env._OPEN_DEADLINE = textworld_env._DEADLINE = 1.0
textworld_env._OPEN_DEADLINE = 3.0
rng = np.random.default_rng(count)

def damaged(whole):
    way, data = int(rng.integers(5)), bytearray(whole)
    if way == 0:
        return bytes(data[: int(rng.integers(len(data)))])
    if way == 1:
        at = int(rng.integers(len(data)))
        data[at : at + 4096] = bytes(len(data[at : at + 4096]))
    elif way == 2:
        data[int(rng.integers(64))] ^= 1 + int(rng.integers(255))
    elif way == 3:
        return rng.bytes(int(rng.integers(1, 4000)))
    else:
        for at in rng.integers(64, len(data), size=200):
            data[int(at)] ^= 1 + int(rng.integers(255))
    return bytes(data)

def play(spec):
    task = envs.tasks(spec)[0]
    env = envs.make_env(task)
    try:
        env.reset(options={"task": task})
        for command in ("look", "go north", "inventory"):
            if any(env.step(command)[2:4]):
                break
    finally:
        env.close()

story, description = game.read_bytes(), game.with_suffix(".json").read_bytes()
ends, longest = {"refused": 0, "played": 0}, 0.0
folder = Path(sys.argv[4])
for i in range(count):
    file = folder / f"{kind}-{i}.z8"
    file.write_bytes(story if kind == "description" else damaged(story))
    file.with_suffix(".json").write_bytes(damaged(description) if kind == "description" else description)
    began = time.monotonic()
    try:
        play(f"{'jericho' if kind == 'foreign' else 'games'}:{file}")
        ends["played"] += 1
    except OpcdError:
        ends["refused"] += 1
    longest = max(longest, time.monotonic() - began)
    file.unlink()
    file.with_suffix(".json").unlink()
print(json.dumps([ends, longest, os.listdir(".")]))
"""

REPLIES = """
import json, os, sys
import numpy as np
import envs
from envs.jericho_env import jericho_task

coin = envs.tasks("coin:level=5,games=1")[0]
tasks = {
    "house": envs.tasks("house:0")[0],
    "coin": coin,
    "jericho": jericho_task(coin.kwargs["game"]),
    "lake": envs.tasks("frozen-lake:")[0],
    "operator": envs.tasks("operator:3#4")[0],
    "math": envs.tasks("procedural:gcd,count=1")[0],
}
envs.prepare(tasks.values())
found = {}
for name, task in tasks.items():
    rng, env = np.random.default_rng(9), envs.make_env(task)
    fresh = env.reset(options={"task": task})
    before = [env.step("> look")[0], fresh]
    env.reset()
    for i in range(1000):
        said = rng.bytes(int(rng.integers(1, 300)))
        said = said.decode("latin-1") if i % 2 else said.decode("utf-8", "surrogateescape")
        if any(env.step(said)[2:4]):
            env.reset()
    again = env.reset(options={"task": task})
    found[name] = [env.step("> look")[0], again] == before
    env.close()
print(json.dumps([found, os.listdir(".")]))
"""


def run(program: str, arguments: list[str], folder: Path, games: Path, seconds: float):
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OPCD_CACHE": str(games)},
        cwd=folder,
        timeout=seconds,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def games(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("games")


@pytest.mark.parametrize(
    ("kind", "count", "limit"),
    [("story", STORIES, 3 + 3 + 2), ("description", DESCRIPTIONS, 3 + 3 + 2), ("foreign", FOREIGN, 2 * 1 + 3 + 2)],
)
def test_damaged_games_end_in_time_and_alone(tmp_path, games, monkeypatch, kind, count, limit):
    """`limit`: the deadlines of what a case may ask for, and a second or two for starting a process on a busy machine."""
    monkeypatch.setenv("OPCD_CACHE", str(games))
    game = envs.tasks("coin:level=3,games=1")[0].kwargs["game"]
    work, scratch = tmp_path / "work", tmp_path / "scratch"
    work.mkdir()
    scratch.mkdir()
    ends, longest, left = run(DAMAGE, [kind, str(count), game, str(scratch)], work, games, 600)
    assert sum(ends.values()) == count
    assert ends["refused"] > count / 3
    assert longest < limit
    assert left == []
    assert list(scratch.iterdir()) == []


def test_random_replies_leave_no_trace(tmp_path, games):
    found, left = run(REPLIES, [], tmp_path, games, 600)
    assert found == dict.fromkeys(found, True)
    assert len(found) == 6
    assert left == []
