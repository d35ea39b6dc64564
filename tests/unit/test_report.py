"""The report of a run: made of what runs write, with nothing in it that a game or a note could steer."""

from cli.evaluate import Played
from cli.report import write_report
from cli.training import run_config
from cli.workflow import Evaluation
from opcd_agents.policies.scripted import ScriptedPolicy
from opcd_agents.recipe import Recipe
from opcd_agents.runs import RunFolder
from opcd_agents.scores import GapClosed, tally
from opcd_agents.types import Context, Episode, Outcome, Provenance, Split, Task, Turn

HOSTILE = "<script>alert(1)</script>\x1b[31m"


def episode(won):
    task = Task("e", {}, 0, Split.TEST, "s", "f", 4, 9)
    turn = Turn(f"Hall. {HOSTILE}", "> go south", "go south")
    return Episode(task, (turn,), Outcome.WON if won else Outcome.LOST, Provenance("m", "w", 0, "v"), "Over.")


def test_it_shows_every_context_and_every_curve(tmp_path):
    contexts = [Context(f"c{i}", f"Notes: coin {i}. {HOSTILE}", "experience", 1, "s") for i in range(2)]
    config = run_config("house:7", ScriptedPolicy(["> look"]), contexts, Recipe(), 0)
    run = RunFolder.create(tmp_path / "run", config)
    run.log({"update": 0, "without_context": 0.1, "with_context": 0.9})
    run.log({"update": 1, "won": None, "loss": 0.5})
    run.log({"update": 2, "won": 0.25, "loss": 0.25, "validation": 0.75})
    score = tally({"f": (1, 4)})
    names = ("before", "with_context", "after", "random", "blind", "optimal", "retained_before", "retained_after")
    found = Evaluation(seed=0, seconds=1.0, gap=GapClosed(0.5, 0.1, 0.9), **dict.fromkeys(names, score))
    html = write_report(run, found, Played([episode(False)], [], []), Played([episode(True)], [], [])).read_text()
    assert [f"Notes: coin {i}." in html for i in range(2)] == [True, True]
    assert "<script>alert" not in html
    assert "\x1b" not in html
    assert "won on validation" in html
    assert html.count("<h3>") == 2
