"""One static HTML page about a run: the curve, the table, three episodes before and after side by side.

No script, no request, everything escaped: its texts come from models and games. Knows nothing of how it was trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader

from cli.console import clean
from opcd_agents.runs import write_atomic

if TYPE_CHECKING:
    from pathlib import Path

    from cli.evaluate import Played
    from cli.workflow import Evaluation
    from opcd_agents.runs import RunFolder
    from opcd_agents.types import Episode

_WIDTH, _HEIGHT = 640, 200


@dataclass(frozen=True)
class Curve:
    """A line of the plot: what it shows, its SVG points, its last value as text, what its 100 % is if not 1."""

    name: str
    points: str
    last: str
    scale: str
    colour: str


def write_report(run: RunFolder, result: Evaluation, before: Played, after: Played) -> Path:
    """Write report.html into the run folder.

    Returns:
        Where it lies.
    """
    metrics = run.metrics()
    page = Environment(loader=PackageLoader("cli"), autoescape=True).get_template("report.html")
    config = run.config
    html = page.render(
        title=f"{config['model']} on {config['tasks']}",
        config=config,
        rows=result.rows(),
        gap=result.gap,
        seconds=result.seconds,
        curves=_curves(metrics),
        updates=max((line["update"] for line in metrics), default=0),
        width=_WIDTH,
        height=_HEIGHT,
        pairs=_pairs(before.bare, after.bare),
        clean=clean,
    )
    path = run.path / "report.html"
    write_atomic(path, html.encode())
    return path


def _curves(metrics: Sequence[dict[str, Any]]) -> list[Curve]:
    """Loss scaled to its largest value; rates as they are."""
    last = max((line["update"] for line in metrics), default=1)
    top = max((line["loss"] for line in metrics if "loss" in line), default=1.0)
    wanted = [("loss", "loss (nats a token)", top, "#b33"), ("won", "won while playing", 1.0, "#888")]
    wanted.append(("validation", "won on validation", 1.0, "#27c"))
    return [_curve(metrics, *each, last) for each in wanted]


def _curve(metrics: Sequence[dict[str, Any]], key: str, name: str, top: float, colour: str, last: int) -> Curve:
    values = [(line["update"], line[key]) for line in metrics if line.get(key) is not None]
    points = " ".join(f"{_WIDTH * u / last:.1f},{_HEIGHT * (1 - v / top):.1f}" for u, v in values)
    scale = "" if top == 1 else f", 100 % is {top:.3g}"
    return Curve(name, points, f"{values[-1][1]:.3g}" if values else "-", scale, colour)


def _pairs(before: Sequence[Episode], after: Sequence[Episode], count: int = 3) -> list[tuple[Episode, Episode]]:
    """Episodes of the same task, those first that were lost before and are won after."""
    later = {episode.task.fingerprint: episode for episode in after}
    pairs = [(e, later[e.task.fingerprint]) for e in before if e.task.fingerprint in later]
    unique = list({old.task.fingerprint: (old, new) for old, new in pairs}.values())
    return sorted(unique, key=lambda pair: pair[0].won - pair[1].won)[:count]
