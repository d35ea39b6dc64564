"""Maps as trees: hung from the centre, every room from a neighbour."""

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opcd_agents.maps import hang


def linked(*links: str, alone: str = "") -> dict[str, list[str]]:
    """A map of one-letter rooms from links such as "AB"."""
    neighbours: dict[str, list[str]] = {room: [] for room in alone}
    for a, b in links:
        neighbours.setdefault(a, []).append(b)
        neighbours.setdefault(b, []).append(a)
    return neighbours


def distances(neighbours: dict[str, list[str]], start: str) -> dict[str, int]:
    found = {start: 0}
    queue = deque([start])
    while queue:
        room = queue.popleft()
        for other in neighbours[room]:
            if other not in found:
                found[other] = found[room] + 1
                queue.append(other)
    return found


@pytest.mark.parametrize(
    ("neighbours", "up"),
    [
        pytest.param({}, {}, id="nothing"),
        pytest.param(linked(alone="A"), {"A": None}, id="one room"),
        pytest.param(linked("AB", "BC"), {"A": "B", "B": None, "C": "B"}, id="the middle is the top"),
        pytest.param(
            linked("ED", "DC", "CB", "BA"), {"A": "B", "B": "C", "C": None, "D": "C", "E": "D"}, id="a long corridor"
        ),
        pytest.param(linked("BA"), {"A": None, "B": "A"}, id="a tie falls to the first name"),
        pytest.param(linked("DB", "BC", "CA"), {"A": "C", "B": None, "C": "B", "D": "B"}, id="a tie, not the end"),
        pytest.param(linked("ZA", "ZB", "ZC"), {"A": "Z", "B": "Z", "C": "Z", "Z": None}, id="a star"),
        pytest.param(linked("CD", "AB", "BE"), {"A": "B", "B": None, "C": None, "D": "C", "E": "B"}, id="two parts"),
        pytest.param(linked("AB", "BC", "CA"), {"A": None, "B": "A", "C": "A"}, id="a ring of three"),
        pytest.param(
            linked("AB", "BC", "CD", "DA", "DE"),
            {"A": None, "B": "A", "C": "B", "D": "A", "E": "D"},
            id="a ring, a tail",
        ),
    ],
)
def test_hang(neighbours, up):
    assert hang(neighbours) == up


rooms = st.sampled_from("ABCDEFGH")
maps = st.lists(st.tuples(rooms, rooms).filter(lambda link: link[0] < link[1]), unique=True, max_size=14)


@given(maps, st.randoms(use_true_random=False))
def test_any_map_hangs_from_its_centres(links, rng):
    neighbours = linked(*(a + b for a, b in links))
    up = hang(neighbours)
    assert set(up) == set(neighbours)
    for top in (room for room, above in up.items() if above is None):
        away = distances(neighbours, top)
        part = {room: max(distances(neighbours, room).values()) for room in sorted(away)}
        assert top == min(part, key=lambda room: part[room])
        assert all(away[room] == away[above] + 1 for room in away if (above := up[room]) is not None)
        assert [room for room in away if up[room] is None] == [top]
    shuffled = list(neighbours)
    rng.shuffle(shuffled)
    assert hang({room: neighbours[room] for room in shuffled}) == up
