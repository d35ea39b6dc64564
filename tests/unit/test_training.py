"""What `opcd distill` makes sure of before a run, and what it leaves: checks, the gap, the card."""

from dataclasses import replace

import pytest

from cli import models, training, workflow
from cli.distill import _read
from cli.saving import _card
from cli.stored import ANCHORED, anchors_of, stored_in
from envs.operator import operator_tasks
from experience_bank import Bank, system_prompt
from opcd_agents.errors import EngineError, UsageError
from opcd_agents.policies.scripted import ScriptedPolicy
from opcd_agents.recipe import Recipe
from opcd_agents.runs import RunFolder
from opcd_agents.types import Context, Split, Tokens

TASKS = operator_tasks("#", 1, 6)
SCOPE = TASKS[0].scope
CONTEXTS = [Context(f"c{i}", f"Notes: number {i}.", "experience", 1, SCOPE) for i in range(3)]


def begun(folder, policy, **recipe):
    config = training.run_config("operator:1#6", policy, CONTEXTS, Recipe(preflight=8, **recipe), 0)
    return RunFolder.create(folder / "run", config)


class Listener(ScriptedPolicy):
    """Remembers what it read."""

    def __init__(self, *replies):
        super().__init__(replies)
        self.read = []

    def begin(self, context, seeds):
        self.read += [context] * len(seeds)
        return super().begin(context, seeds)


def test_the_gap_is_measured_once_and_every_context_is_read(tmp_path):
    policy = Listener("5")
    run = begun(tmp_path, policy, contexts="random")
    training.preflight(policy, run)
    assert [policy.read.count(text) for text in (None, *(c.text for c in CONTEXTS))] == [8, 3, 3, 2]
    assert [line["update"] for line in run.metrics()] == [0]
    training.preflight(policy, run)
    assert len(policy.read) == 16
    (run.path / "metrics.jsonl").unlink()  # as after a kill while it was measured
    training.preflight(policy, run)
    assert [line["update"] for line in run.metrics()] == [0]


def test_a_gap_of_failed_episodes_is_none(tmp_path, monkeypatch):
    def broken(task):
        raise EngineError("no engine here")

    monkeypatch.setattr("envs.make_env", broken)
    policy = Listener("5")
    with pytest.raises(EngineError, match=r"every episode failed.*no engine here"):
        training.preflight(policy, begun(tmp_path, policy))


def test_validation_tasks_are_wanted_where_there_is_validation(tmp_path, monkeypatch, capsys):
    alone = [task for task in TASKS if task.split != Split.VALIDATION]
    with pytest.raises(UsageError, match="validate = 0"):
        training.check_tasks(alone, Recipe())
    training.check_tasks(alone, Recipe(validate=0))
    monkeypatch.setattr("envs.tasks", lambda name: alone)
    policy = Listener("5")
    training.preflight(policy, begun(tmp_path, policy, validate=0))
    assert "not measured" in capsys.readouterr().err


def test_a_gap_that_is_not_measured_is_told(tmp_path, capsys):
    policy, recipe = Listener("5"), Recipe(contexts="solution")
    training.preflight(policy, RunFolder.create(tmp_path / "run", training.run_config("t", policy, [], recipe, 0)))
    assert "not measured" in capsys.readouterr().err
    assert not policy.read


def test_solutions_are_wanted_where_the_teacher_reads_them():
    recipe = Recipe(contexts="solution")
    with pytest.raises(UsageError, match="without one"):
        training.check_tasks(TASKS, recipe)
    training.check_tasks([replace(task, kwargs={"solution": "so"}) for task in TASKS], recipe)


@pytest.fixture
def bank(tmp_path):
    with Bank.open(tmp_path / "bank.db") as store:
        for text in ("first", "second"):
            store.add_context(system_prompt(text, SCOPE, len))
        store.bless(next(c for c in store.contexts() if c.text == "first"), "best on validation")
    return str(tmp_path / "bank.db")


def test_a_context_is_read_where_one_is_wanted(bank):
    def read(names, **recipe):
        return [one.text for one in _read(bank, names, TASKS, Recipe(**recipe))]

    assert read([]) == ["second"]
    assert read([SCOPE]) == ["first"]  # the best on validation is blessed, and stands for its scope
    for method in ("sft", "grpo"):
        assert read([], method=method) == []
        assert read([SCOPE], method=method) == ["first"]
        assert read([], method=method, nca=0.1) == ["second"]
    assert read([], contexts="solution") == []
    with pytest.raises(UsageError, match="wanted no --context"):
        read([SCOPE], contexts="solution")


def test_there_must_be_something_to_replay(bank):
    with pytest.raises(UsageError, match=r"train episodes of 'operator/1#6' .* found none"):
        stored_in(bank, SCOPE, Recipe(rollouts="replay"))


def test_what_a_student_is_held_to_is_named_and_not_what_it_learns(bank):
    with pytest.raises(UsageError, match="anchors = 0"):
        stored_in(bank, SCOPE, Recipe(), ["operator/3#4"])
    with pytest.raises(UsageError, match="must stay as it is"):
        stored_in(bank, SCOPE, Recipe(anchors=2), [SCOPE])
    with pytest.raises(UsageError, match=r"train episodes of 'operator/3#4' .* found none"):
        stored_in(bank, SCOPE, Recipe(anchors=2), ["operator/3#4"])


def test_a_student_is_held_to_episodes_of_the_bank_as_it_played_them(tmp_path):
    policy, path = models.policy("pocket"), str(tmp_path / "held.db")
    others = [task for task in operator_tasks("#", 3, 4) if task.split is Split.TRAIN][:4]
    with Bank.open(path) as store:
        played = workflow.gather(policy, others, 4, seed=0, keep=store.add_episode)
    recipe = Recipe(anchors=2)
    config = {"contexts": []} | stored_in(path, SCOPE, recipe, [others[0].scope])
    assert len(config[ANCHORED]) == 4
    rows = [one.student for one in anchors_of(policy, config, recipe)]
    assert sorted(row.ids for row in rows) == sorted(Tokens.of(e.turns).ids for e in played)
    assert not anchors_of(policy, config, Recipe())


HOSTILE = "x\n---\ntags: [evil]\n---\n# Mine\x1b]0;owned\x07\x1b[31m\u202e</code><script>alert(1)</script>\x0b```\u2028out\x85out"


def test_a_card_shows_hostile_texts_and_does_nothing_else():
    """Every line that someone else wrote is indented, so Markdown shows it; nothing of it reaches a terminal."""
    config = {"model": HOSTILE, "tasks": HOSTILE, "seed": 0, "recipe": {"teacher": HOSTILE, "contexts": "fixed"}}
    card = _card(config | {"contexts": [{"id": HOSTILE, "text": HOSTILE}]}, {"updates": 1})
    for line in card.splitlines():
        assert line.startswith("    ") or not any(word in line for word in ("---", "evil", "Mine", "<", "`"))
    assert card.startswith("# A model distilled")
    assert not any(one in card for one in "\x1b\x07\u202e\u2028\x85\x0b")
    assert "alert(1)" in card


@pytest.mark.parametrize(("contexts", "read"), [("fixed", "nothing"), ("solution", "each task's reference solution")])
def test_a_card_without_a_context_says_what_was_read(contexts, read):
    config = {"model": "m", "tasks": "t", "seed": 0, "recipe": {"contexts": contexts}, "contexts": []}
    assert f"What the teacher read:\n\n    {read}\n" in _card(config, {})


@pytest.mark.parametrize(
    ("recipe", "read"),
    [
        ({"method": "sft"}, "nothing"),
        ({"method": "grpo", "nca": 0.0}, "nothing"),
        ({"method": "grpo", "nca": 0.5}, "context c:"),
        ({"method": "opcd", "contexts": "solution"}, "each task's reference solution"),
        ({"method": "off-policy", "contexts": "random"}, "context c:"),
    ],
)
def test_a_card_says_what_was_read_and_not_what_lay_there(recipe, read):
    """Rounds make notes whatever the method is."""
    read_by = {"contexts": [{"id": "c", "scope": SCOPE, "text": "Notes."}], "recipe": recipe}
    assert f"What the teacher read:\n\n    {read}\n" in _card({"model": "m", "tasks": "t", "seed": 0} | read_by, {})
