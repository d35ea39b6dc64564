"""The commands under `accelerate launch` with two processes: they play what one plays, keep it once, and the first one speaks."""

import json
import os
import subprocess
import sys

from experience_bank import Bank

RECIPE = "updates = 2\nepisodes = 4\nanchors = 0\nvalidate = 2\nvalidation_episodes = 4\npreflight = 6\n"


def launched(*args, how="--multi_gpu"):
    """`opcd ARGS --json` in two processes; what was printed."""
    launch = [
        sys.executable, "-m", "accelerate.commands.launch", how, "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no",
        "--dynamo_backend", "no", "--main_process_port", "0", "-m", "opcd_agents", *args, "--json",
    ]  # fmt: skip
    env = os.environ | {"ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*map(str, launch)], env=env, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    [told] = done.stdout.splitlines()
    return json.loads(told)


def test_two_processes_do_what_one_does(opcd, tmp_path):
    (recipe := tmp_path / "tiny.toml").write_text(RECIPE)
    rounds = ("rounds", "house:5", "--rounds", 1, "--episodes", 12, "--test", 4, "--recipe", recipe, "--out")
    told = launched(*rounds, tmp_path / "two")
    alone = opcd(*rounds, tmp_path / "one", "--json")
    assert alone.code == 0, alone.err
    assert told["rounds"][0] == json.loads(alone.out)["rounds"][0]
    banks = [tmp_path / name / "bank.db" for name in ("one", "two")]
    with Bank.open(banks[0], "r") as one, Bank.open(banks[1], "r") as two:
        assert one.counts() == two.counts()
        assert one.counts()["episodes"] == 12
        assert one.context("house/5").text == two.context("house/5").text
    distill = ("distill", "house:5", "--context", "house/5", "--recipe", recipe, "--bank", banks[1], "--out")
    launched(*distill, tmp_path / "shared", how="--use_fsdp")
    assert opcd(*distill, tmp_path / "whole").code == 0
    lines = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("shared", "whole")]
    assert lines[0][0] == lines[1][0]  # before the first update: both rates of the pre-flight
    assert len(lines[0]) == len(lines[1]) == 3
    assert opcd("play", "house:5", "--model", tmp_path / "shared" / "model").code == 0
