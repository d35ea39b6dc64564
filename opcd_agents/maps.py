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
            part, _ = _tree(neighbours, room)
            trees = (_tree(neighbours, top) for top in sorted(part))
            up |= min(trees, key=lambda tree: tree[1])[0]
    return up


def _tree(neighbours: Mapping[str, Sequence[str]], top: str) -> tuple[dict[str, str | None], int]:
    """The shortest ways from `top`: each room's neighbour nearer to it, and how far the farthest is."""
    up: dict[str, str | None] = {top: None}
    depth = {top: 0}
    queue = deque([top])
    while queue:
        room = queue.popleft()
        for other in neighbours.get(room, ()):
            if other not in up:
                up[other] = room
                depth[other] = depth[room] + 1
                queue.append(other)
    return up, max(depth.values())
