"""Lessons from episodes without a language model: rules of the commands, and what they bring.

Rules (`effect`, `precondition`, `non_contribution`, `necessity`) are of a kind of world, so their scope is its family: `textworld` for
`textworld/custom-5-8-5`, `house` for `house/7`. What wins and loses (`pitfall`, `contrast`, what is rewarded) depends on the goal and keeps the scope of
its tasks. Reads what the player saw and did, never the hidden state; needs, for rules, players that were told what is possible.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from experience_bank.mining import wording
from experience_bank.mining.asked import demands
from experience_bank.mining.causes import necessities
from experience_bank.mining.contrast import contrast
from experience_bank.mining.outcomes import fatal, idle, rewarded
from experience_bank.mining.plays import Game, lifted, refuse_test
from experience_bank.mining.rules import effects, preconditions
from experience_bank.scopes import family
from opcd_agents.types import Episode, Lesson

__all__ = ["mine"]


def mine(episodes: Iterable[tuple[str, Episode]]) -> list[Lesson]:
    """What `episodes` teach of commands.

    Args:
        episodes: (id, episode) pairs, as a bank gives them; their order does not matter.

    Returns:
        Lessons, in no order of rank. Templates stand in their facts with slots: `take {0} from {1}`.

    Raises:
        UsageError: An episode belongs to the test split.
    """
    families: dict[str, list[tuple[str, Episode]]] = defaultdict(list)
    for key, episode in episodes:
        refuse_test(key, episode)
        families[family(episode.task.scope)].append((key, episode))
    return [lesson for name in sorted(families) for lesson in _of_family(name, lifted(families[name]))]


def _of_family(name: str, games: Sequence[Game]) -> Iterator[Lesson]:
    needs = preconditions(games)
    found = effects(games, needs)
    yield from wording.effect_lessons(name, found)
    yield from wording.precondition_lessons(name, needs)
    yield from wording.idle_lessons(name, idle(games))
    yield from (wording.cause_lesson(name, cause) for cause in necessities(games, found, needs))
    yield from wording.demand_lessons(name, demands(games))
    for scope in sorted({play.episode.task.scope for game in games for play in game.plays}):
        groups = [[play for play in game.plays if play.episode.task.scope == scope] for game in games]
        plays = [play for group in groups for play in group]
        yield from wording.reward_lessons(scope, rewarded(plays))
        yield from wording.fatal_lessons(scope, fatal(plays))
        yield from wording.contrast_lessons(scope, contrast(groups))
