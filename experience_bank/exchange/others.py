"""Lessons that other programs wrote down: OPCD's experience files, ACE playbooks, ReasoningBank's lines. Knows no episode.

Shapes, as the programs themselves write and read them: microsoft/LMOps (OPCD), ace-agent/ace `playbook_utils.py`,
google-research/reasoning-bank `induce_memory.py` (`memory_items` is a text in Markdown, elsewhere a list of such or of objects).

What is imported becomes a line of a prompt and then weights, so a statement is one line without control, format or
private characters (zero-width joiners among them), at most 2000 characters long: a longer one is left out and not cut, for half a
rule may say the opposite. What looks like a special token of some chat template, also in full-width letters, is left out: no lesson
needs it. Nothing here shows the lessons: they say in `facts` which file they come from, and wait in quarantine.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from experience_bank.exchange.files import Source
from experience_bank.exchange.intake import Foreign, Intake, reading
from experience_bank.scopes import GLOBAL
from opcd_agents.disarm import SPECIAL
from opcd_agents.types import Lesson

MOST_VOTES: Final = 100  # of each kind for a lesson; a counter is a text that anybody can edit
_MOST_SIGNS: Final = 2000
_DROPPED: Final = ("Cc", "Cf", "Cs", "Co")
_ITEM: Final = re.compile(r"\s*(?:[-*]\s*)?\**EXPERIENCE ITEM\**\s*:\**\s*(.*)", re.IGNORECASE)
_BULLET: Final = re.compile(r"\s*(?:[-*]\s*)?\[([^\]]{1,100})\]\s*helpful=(\d{1,9})\s*harmful=(\d{1,9})\s*::\s*(.*)")
_HEADING: Final = re.compile(r"\s*#+\s*(.*)")
_PART: Final = re.compile(r"^\s*#{1,4}\s*(title|description|content)\b[:\s]*", re.IGNORECASE | re.MULTILINE)
_BLOCK: Final = re.compile(r"^\s*#{1,3}\s*memory item\b.*$", re.IGNORECASE | re.MULTILINE)

Item = tuple[str, str, dict[str, str], int, int]  # kind, statement, facts, helped, harmed


def clean(text: str) -> str:
    """A text on one line, without what cannot be seen."""
    kept = (sign if unicodedata.category(sign) not in _DROPPED else " " if sign.isspace() else "" for sign in text)
    return " ".join("".join(kept).split())


def fault(statement: str) -> str | None:
    """Why a cleaned statement is left out, or None."""
    if not statement:
        return "says nothing"
    if len(statement) > _MOST_SIGNS:
        return f"is longer than {_MOST_SIGNS} characters"
    if SPECIAL.search(unicodedata.normalize("NFKC", statement)):
        return "holds what looks like a special token"
    return None


def reader(format: str) -> Callable[[Source, Intake, str], None]:
    """What reads lessons in one of `FORMATS`."""
    items = FORMATS[format]

    def read(source: Source, intake: Intake, came: str) -> None:
        with reading(source.name):
            content = source.whole()
            origin = {"file": source.name, "sha256": hashlib.sha256(content).hexdigest()}
            found = [_foreign(item, format, origin, intake) for item in items(content.decode("utf-8-sig"))]
            if not found:
                raise ValueError(f"no lessons of {format} in it")
            intake.add_lessons(told for told in found if told)

    return read


def _foreign(item: Item, format: str, origin: Mapping[str, str], intake: Intake) -> Foreign | None:
    kind, said, facts, helped, harmed = item
    statement = clean(said)
    if why := fault(statement):
        intake.notes.append(f"{origin['file']}: a lesson {why}: {statement[:60]}")
        return None
    known = {name: clean(value)[:200] for name, value in facts.items() if fault(clean(value)) is None}
    lesson = Lesson(kind, GLOBAL, statement, known | dict(origin), ())
    return Foreign(lesson, format, origin["file"], min(helped, MOST_VOTES), min(harmed, MOST_VOTES))


def _opcd(text: str) -> Iterator[Item]:
    """One item a line; what is indented below goes on with it."""
    said: list[str] = []
    for line in [*text.splitlines(), ""]:
        item = _ITEM.match(line)
        if said and not item and line[:1].isspace() and line.strip():
            said.append(line)
        elif said:
            yield "strategy", " ".join(said), {}, 0, 0
            said = []
        if item:
            said = [item[1]]


def _ace(text: str) -> Iterator[Item]:
    section = ""
    for line in text.splitlines():
        if bullet := _BULLET.match(line):
            facts = {"section": section, "id": bullet[1]}
            yield "strategy", bullet[4], facts, int(bullet[2]), int(bullet[3])
        elif heading := _HEADING.match(line):
            section = heading[1]


def _reasoning_bank(text: str) -> Iterator[Item]:
    for line in text.split("\n"):
        if line.strip():
            told = json.loads(line)
            kind = "pitfall" if str(told.get("status", "")).startswith("fail") else "strategy"
            for item in _memories(told):
                words = {name: str(item.get(name) or "") for name in ("title", "description", "content")}
                said = words["content"] or words["description"]
                facts = {"title": words["title"], "description": words["description"]}
                yield (
                    kind,
                    f"{words['title']}: {said}" if words["title"] and said else said or words["title"],
                    facts,
                    0,
                    0,
                )


def _memories(told: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    items: Any = told.get("memory_items", told)
    for item in items if isinstance(items, list) else [items]:  # pyright: ignore[reportUnknownVariableType]
        if isinstance(item, str):
            blocks = [block for block in _BLOCK.split(item) if block.strip(" \n`-")]
            yield from map(_parts, blocks)
        else:
            yield item


def _parts(block: str) -> Mapping[str, str]:
    """Title, description and content of an item in Markdown."""
    _, *rest = _PART.split(block)
    found = {name.lower(): said.strip(" \n`-") for name, said in zip(rest[::2], rest[1::2], strict=True)}
    return found or {"content": block}


FORMATS: Final[Mapping[str, Callable[[str], Iterator[Item]]]] = {
    "opcd": _opcd, "ace": _ace, "reasoningbank": _reasoning_bank,
}  # fmt: skip
