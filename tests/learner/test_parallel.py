"""Two processes make the update that one makes of the same examples, and play the episodes that one plays."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from opcd_agents.errors import UsageError
from opcd_agents.learner.parallel import Alone
from opcd_agents.learner.roles import cast_roles
from opcd_agents.policies.huggingface import HuggingFacePolicy
from opcd_agents.recipe import Recipe

PROGRAM = """
import json, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from opcd_agents.learner import distill as module
from opcd_agents.learner.distill import Subject, distill
from opcd_agents.learner.contexts import Fixed
from opcd_agents.learner.parallel import found
from opcd_agents.policies.huggingface import HuggingFacePolicy
from opcd_agents.pocket.tokens import train_tokenizer
from opcd_agents.recipe import recipe_from
from opcd_agents.render import Renderer
from opcd_agents.runs import RunFolder
from tests.learner.conftest import TEXTS, tiny
from tests.learner.test_distill import CONTEXT, TASKS, anchors as rows_of, play
from tests.learner.test_recipes import Fickle

folder, values, stop = Path(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3])
workers = found()
module._UPDATES, module._SECONDS = 100, -1.0 if workers.rank == 0 else 1e9  # a checkpoint an update, though clocks differ
tokenizer = train_tokenizer(TEXTS, 400)
renderer = Renderer(tokenizer)
policy = HuggingFacePolicy(tiny(len(tokenizer)), renderer, "tiny")
anchors = [row for e in play(HuggingFacePolicy(tiny(len(tokenizer)), renderer, "t", longest=4), TASKS[:3], Fickle, context="Notes: x.") for row in rows_of(e, renderer)]
resume = (folder / "config.json").exists()
workers.wait()
if workers.rank == 0 and not resume:
    RunFolder.create(folder, {})
workers.wait()


def watch(line):
    if line["update"] == stop:
        left()
        raise SystemExit


def left():
    if workers.size > 1:
        torch.distributed.destroy_process_group()


subject = Subject(TASKS[:4], TASKS[4:], Fickle, Fixed(CONTEXT), anchors)
result = distill(policy, subject, recipe_from(values), RunFolder.open(folder), seed=3, resume=resume, workers=workers, watch=watch)
torch.save({n: p.detach() for n, p in result.trained.named_parameters()}, folder / f"weights-{workers.rank}.pt")
(folder / f"data-{workers.rank}.json").write_text(json.dumps(result.data))
left()
"""
ROOT = Path(__file__).parents[2]
SMALL = {
    "updates": 3,
    "episodes": 6,
    "lr": 1e-3,
    "longest": 4,
    "validate": 2,
    "validation_episodes": 4,
    "temperature": 1.0,
    "anchors": 3,
}


def launched(folder, values, processes, how="--multi_gpu", stop=0):
    script = folder.parent / "program.py"
    script.write_text(PROGRAM)
    launch = [sys.executable, script]
    if processes > 1:
        launch = [
            sys.executable, "-m", "accelerate.commands.launch", how, "--num_processes", str(processes), "--num_machines", "1",
            "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0", script,
        ]  # fmt: skip
    done = subprocess.run(
        [*map(str, launch), str(folder), json.dumps(values), str(stop)],
        cwd=ROOT,
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "HOME": str(folder.parent),
            "ACCELERATE_USE_CPU": "1",
        },
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[:3000]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return lines


@pytest.mark.parametrize(
    "values",
    [{}, {"method": "grpo", "group": 2}, {"average": "sequence", "method": "off-policy"}],
    ids=["opcd", "grpo", "off"],
)
def test_two_processes_make_the_update_of_one(tmp_path, values):
    compared(tmp_path, values, "--multi_gpu")


@pytest.mark.parametrize(
    "values",
    [
        {"teacher": "live", "nca": 0.5, "row_tokens": 64, "episodes": 3, "checkpointing": True},
        {"teacher": "0.5 frozen + 0.5 sync", "weights": "feed-forward", "pull": 0.1, "diagnose": 8},
    ],
    ids=["uneven", "part"],
)
def test_a_sharded_student_makes_the_update_of_a_whole_one(tmp_path, values):
    """Processes with less to learn from stand by, teachers read whole copies, the weights come out whole."""
    compared(tmp_path, values, "--use_fsdp")


def test_an_adapter_is_not_sharded(monkeypatch, network, renderer):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    workers = Alone()
    workers.size = 2
    policy = HuggingFacePolicy(network, renderer, "tiny")
    with pytest.raises(UsageError, match="wanted whole weights with FSDP"):
        cast_roles(policy, Recipe(lora_rank=2), lambda name: network, workers)


def test_a_run_goes_on_with_another_number_of_processes(tmp_path):
    """One process, two with a sharded student, two with whole ones: each takes up what the one before left."""
    values = SMALL | {"teacher": "ema"}
    alone = launched(tmp_path / "alone", values, 1)
    launched(tmp_path / "together", values, 1, stop=1)
    launched(tmp_path / "together", values, 2, "--use_fsdp", stop=2)
    together = launched(tmp_path / "together", values, 2)
    alike(tmp_path, alone, together)


def compared(tmp_path, values, how):
    """Alone and as two processes."""
    alone = launched(tmp_path / "alone", SMALL | values, 1)
    alike(tmp_path, alone, launched(tmp_path / "together", SMALL | values, 2, how))


def alike(tmp_path, alone, together):
    """The same metrics and weights, up to the order of sums."""
    import torch

    keys = ("update", "won", "sampled_in_all", "sampled", "encoded", "validation")
    assert [[line.get(k) for k in keys] for line in together] == [[line.get(k) for k in keys] for line in alone]
    for mine, theirs in zip(together, alone, strict=True):
        for key in ("loss", "anchor", "grad_norm", "first_token"):
            assert mine.get(key, 0) == pytest.approx(theirs.get(key, 0), rel=1e-3, abs=1e-6)
    one, first, second = (
        torch.load(tmp_path / name, weights_only=True)
        for name in ("alone/weights-0.pt", "together/weights-0.pt", "together/weights-1.pt")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    for name in one:
        torch.testing.assert_close(first[name], one[name], atol=2e-4, rtol=1e-3)
