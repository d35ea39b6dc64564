"""Text that hangs, kills or fools the interpreters of other projects does nothing here.

The house is played in a child process with a deadline: an endless loop in C could not be stopped in this one.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import envs

ROOT = Path(envs.__file__).parent.parent
HOSTILE = [
    r"\boxed{go south}", r"> \help", r"> \a", "\\", "> go\x00", "\x00", "> \x00", "> \ud800", "\udfff",
    "> a\rlook", "> a\nb", "go north\ngo south\rlook", "> look. look. look", "> take coin then look",
    "> go north, go south", "> save", "> save\n", "> restore", "> script", "> transcript on", "> quit", "> yes", "> y",
    "> restart", "> yes", "> superbrief", "> brief", "> undo", "> again", "> g", "> oops", "> " + "a" * 119,
    "> " + "go " * 40, "> " + "x" * 5000, "> print_state", "> tw-print player id", "> enable print state option",
    "> tw-extra-infos description", "> \x1b[2J", "> \uff27\uff2f", "> $r", "> #tree", "> %s%n", "> ../../x", "> 'save'",
    "> 1", "> take", "> put", "> what", "> -save", "> 'script", "> say save", "> type save", "> save to file",
    "> load", "> full", "> record on", "> sav", "> scrip", "> wait", "> z", "> no", "> q", "> transcri",
]  # fmt: skip
PLAYER = """
import json, os, sys
import envs
hostile = json.load(sys.stdin)
task = envs.tasks("house:0")[0]
env = envs.make_env(task)
first, info = env.reset()
room = first.split("\\n", 1)[1]
found = []
for text in hostile:
    env.reset()
    before = info["admissible_commands"]
    *_, after = env.step(text)
    calm = after["admissible_commands"] == before and after["moves"] == 1 and not after["won"]
    answer, *_ = env.step("> look")
    found.append([calm, answer == room])
json.dump([found, os.listdir(".")], sys.stdout)
"""


def test_hostile_replies_change_nothing(tmp_path: Path) -> None:
    games = Path(tempfile.gettempdir()) / f"opcd-test-games-{os.getuid()}"
    done = subprocess.run(
        [sys.executable, "-c", PLAYER],
        input=json.dumps(HOSTILE),
        env={**os.environ, "PYTHONPATH": str(ROOT), "OPCD_CACHE": str(games)},
        cwd=tmp_path,
        timeout=120,
        check=True,
        capture_output=True,
        text=True,
    )
    found, files = json.loads(done.stdout)
    assert [text for text, good in zip(HOSTILE, found, strict=True) if good != [True, True]] == []
    assert files == []
    assert done.stderr == ""
