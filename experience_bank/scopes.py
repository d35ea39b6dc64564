"""For what a lesson holds: one world, its family, or everywhere. Knows no lessons."""

from typing import Final

GLOBAL: Final = "global"


def family(scope: str) -> str:
    """What lessons of a kind of world hold for: `house` of `house/7`, `textworld` of `textworld/custom-5-8-5`."""
    return scope.partition("/")[0]


def holding(scope: str) -> tuple[str, ...]:
    """The scopes whose lessons hold for a scope, the nearest first: itself, its family, and `global`."""
    return tuple(dict.fromkeys((scope, family(scope), GLOBAL)))
