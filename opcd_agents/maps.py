"""Maps of rooms as trees: the form in which notes state a map. Knows no games."""

from collections import deque
from collections.abc import Mapping, Sequence


def hang(neighbours: Mapping[str, Sequence[str]]) -> dict[str, str | None]:
    """Hang a map from its centre: each room from the neighbour nearer to it.

    Args:
        neighbours: room -> rooms next to it; the map may have several unconnected parts.

    Returns:
        room -> its neighbour nearer the top of its part, None for the top itself. The top is the room from
        which the farthest room of the part is nearest; ties fall to the first name in order.
    """
    up: dict[str, str | None] = {}
    for room in sorted(neighbours):
        if room not in up:
            part = _tree(neighbours, room)
            top = min(sorted(part), key=lambda r: _depth(_tree(neighbours, r)))
            up |= _tree(neighbours, top)
    return up


def _tree(neighbours: Mapping[str, Sequence[str]], top: str) -> dict[str, str | None]:
    up: dict[str, str | None] = {top: None}
    queue = deque([top])
    while queue:
        room = queue.popleft()
        for other in neighbours.get(room, ()):
            if other not in up:
                up[other] = room
                queue.append(other)
    return up


def _depth(up: Mapping[str, str | None]) -> int:
    def steps(room: str | None) -> int:
        return 0 if room is None else 1 + steps(up[room])

    return max(map(steps, up))
