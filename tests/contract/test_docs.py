"""Every transcript of docs/games was really played: it is played again here, command by command."""

import re
import shutil
from pathlib import Path

import pytest

import envs
from opcd_agents.types import Task

PAGES = Path(__file__).parents[2] / "docs" / "games"
COMMAND, LINE = r"^    \$ opcd play (\S+)(?: --split (\w+) --task (\d+))?\n", r"    (?!\$ ).*\n"
BLOCK = re.compile(rf"{COMMAND}((?:{LINE}|\n(?=(?:\n|{LINE})))+)", re.MULTILINE)


def transcript(task: Task, commands: list[str]) -> str:
    """What a person sees who types these commands: the observations, each after its command."""
    envs.prepare([task])
    env = envs.make_env(task)
    seen, info = env.reset(seed=task.seed, options={"task": task})
    lines = [*seen.split("\n")]
    for command in commands:
        seen, _, _, _, info = env.step(f"> {command}")
        lines += [f"> {command}", *seen.split("\n")]
    env.close()
    lines.append("(won)" if info["won"] else "(lost)" if info["lost"] else "(and so on)")
    shown = "\n".join(f"    {line}".rstrip() for line in lines)
    return f"{shown}\n"


def blocks() -> list[tuple[str, re.Match[str]]]:
    return [(page.stem, block) for page in sorted(PAGES.glob("*.md")) for block in BLOCK.finditer(page.read_text())]


@pytest.mark.parametrize(("page", "block"), [pytest.param(*b, id=f"{b[0]}-{b[1][1]}") for b in blocks()])
def test_it_is_what_a_player_sees(page, block, story, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(story, tmp_path)
    (tmp_path / "questions.jsonl").write_text('{"question": "What is 17 + 25?", "answer": "42"}\n')
    spec, split, number, text = block.groups()
    # A game on its own needs no number; its side follows from its bytes, in which a compiler writes the date.
    task = [task for task in envs.tasks(spec) if split in (None, task.split)][int(number or 0)]
    assert transcript(task, re.findall(r"^    > (.*)$", text, re.MULTILINE)) == text.rstrip() + "\n"


def test_every_family_has_a_page_with_a_transcript():
    shown = {block[1].partition(":")[0] for _, block in blocks()}
    assert shown == set(envs.FAMILIES) - {"games"}  # those are the reader's own
