"""What a tombstone does: the episode goes, with all that holds its words, and a lesson that nothing else shows is retired.

What became of lessons is said in lines of their log whose ids come of tombstone and lesson, so that banks that were merged in
another order hold the same lines.
"""

from collections import defaultdict

from experience_bank.lessons import Op
from experience_bank.store import Row, Store

Link = tuple[str, str]  # a lesson, and an episode that showed it


def bury(store: Store) -> set[Link]:
    """Remove the episodes that have a tombstone, and what is in quarantine under their ids; inside `writing`.

    Returns:
        What they showed: for `buried_by`, once all lessons are there.
    """
    gone = dead(store, store)
    store.do("DELETE FROM episodes WHERE id IN (SELECT episode_id FROM tombstones)", [()])
    store.do("DELETE FROM quarantine WHERE kind = 'episodes' AND name IN (SELECT episode_id FROM tombstones)", [()])
    return gone


def dead(source: Store, target: Store) -> set[Link]:
    """The evidence of `source` in episodes that have a tombstone in `target`."""
    stones = {row["episode_id"] for row in target.rows("SELECT episode_id FROM tombstones")}
    if not stones:
        return set()
    links = source.rows("SELECT DISTINCT lesson_id, episode_id FROM evidence")
    return {(row["lesson_id"], row["episode_id"]) for row in links if row["episode_id"] in stones}


def buried_by(store: Store, links: set[Link]) -> None:
    """Say in the log of each lesson which tombstones took what showed it, inside `writing`.

    Args:
        store: Where it is said.
        links: What was lost now; what was lost before, the log knows.
    """
    before = store.rows("SELECT lesson_id, other FROM lesson_log WHERE op = ?", [str(Op.BURY)])
    links = links | {(row["lesson_id"], row["other"]) for row in before}
    if not links:
        return
    lessons = {row["id"] for row in store.rows("SELECT id FROM lessons")}
    stones: dict[str, list[str]] = defaultdict(list)
    for row in store.rows("SELECT id, episode_id FROM tombstones"):
        stones[row["episode_id"]].append(row["id"])
    lines = [_line(stone, *link) for link in sorted(links) if link[0] in lessons for stone in stones[link[1]]]
    store.insert("lesson_log", lines, known="skip")


def _line(stone: str, lesson: str, episode: str) -> Row:
    # The tombstone's id comes first: the line stands in the log where the episode was forgotten.
    return {
        "id": f"{stone}-{lesson}", "lesson_id": lesson, "op": str(Op.BURY), "other": episode, "actor": "forget",
        "reason": "an episode that showed it was forgotten",
    }  # fmt: skip
