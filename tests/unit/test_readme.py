"""The README tells the truth about folders and commands."""

import re
import tomllib
from pathlib import Path

import pytest

from cli import models
from cli.main import COMMANDS
from opcd_agents.recipe import Recipe, load_recipe

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
FOLDERS = re.findall(r"^    ( *)([a-z_]+)/ {2,}\S", README, re.MULTILINE)


def test_every_folder_of_the_tree_is_there_and_none_is_missing():
    top = [name for indent, name in FOLDERS if not indent]
    parent = ROOT
    for indent, name in FOLDERS:
        parent = parent if indent else ROOT / name
        assert (parent / name if indent else parent).is_dir(), name
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert set(wheel["packages"]) <= set(top)


def test_every_command_of_the_readme_exists():
    named = re.findall(r"\.venv/bin/opcd (\w+)|`opcd (\w+)", README)
    assert {a or b for a, b in named} <= {*COMMANDS, "COMMAND"}
    assert len(named) > 6


@pytest.mark.parametrize("path", sorted(ROOT.glob("recipes/*.toml")), ids=lambda path: path.stem)
def test_every_recipe_is_one(path):
    assert load_recipe(path)


def test_the_default_recipe_is_the_papers():
    paper, default = load_recipe(ROOT / "recipes" / "paper-games.toml"), Recipe()
    same = (
        "method",
        "updates",
        "episodes",
        "lr",
        "clip",
        "average",
        "temperature",
        "longest",
        "weights",
        "anchors",
        "pull",
    )
    assert [getattr(paper, key) for key in same] == [getattr(default, key) for key in same]
    assert models.recipe("Qwen/Qwen3-1.7B") == Recipe()
    assert models.recipe("pocket").weights == "feed-forward"
