"""What is taken of a bank of somebody else: its episodes, and its lessons in quarantine. Knows no format.

What such a bank says of lessons, contexts and episodes is hearsay: a tombstone would delete what we hold, a line of a log would release
or retire a lesson, a blessing would put a text of theirs in front of our teacher. All that stays out, and is counted.
"""

from collections import Counter
from dataclasses import replace
from typing import Final

from experience_bank.bank import Bank
from experience_bank.exchange.inside import store_of
from opcd_agents.types import Lesson

_HEARSAY: Final = {
    "tombstones": "tombstones", "votes": "votes", "lesson_log": "lines of the lessons' log", "contexts": "contexts",
    "context_log": "lines of the contexts' log", "validations": "validations", "quarantine": "rows in quarantine",
}  # fmt: skip


def bring_foreign(bank: Bank, staged: Bank, name: str, notes: list[str]) -> Counter[str]:
    """Add what may come in to a bank.

    Args:
        bank: The bank.
        staged: What was read.
        name: Where it comes from, for the log.
        notes: Gets a line about what was left out.

    Returns:
        Table to the number of rows that were new.
    """
    fresh = Counter(bank.take_episodes(staged))
    known, there = {key for key, _ in bank.lessons(status=None)}, set(bank.episode_ids())
    # A lesson that is here gains no evidence: it would stand higher for what others say.
    new = [_ours(lesson, there) for key, lesson in staged.lessons(status=None) if key not in known]
    bank.add_lessons(new, "import:jsonl", quarantined=True, reason=name)
    fresh.update(lessons=len(new), evidence=sum(len(lesson.evidence) for lesson in new))
    counts = {said: store_of(staged).value(f"SELECT count(*) FROM {table}") for table, said in _HEARSAY.items()}
    if left := ", ".join(f"{count} {said}" for said, count in counts.items() if count):
        notes.append(f"left out, for they are not ours: {left}; --trusted takes in all of your own backup")
    return fresh


def _ours(lesson: Lesson, there: set[str]) -> Lesson:
    """The lesson with the evidence that can be looked at here."""
    return replace(lesson, evidence=tuple((key, turn) for key, turn in lesson.evidence if key in there and turn >= 0))
