"""Episode ids that sort by the time they were made. Knows nothing of what they name."""

import secrets
import time
from typing import final


@final
class Ids:
    """Makes ids: 12 hex digits of milliseconds since 1970, then 8 of chance.

    Ids of one maker always rise, even within a millisecond or when the clock is set back.
    """

    def __init__(self) -> None:
        self._last = 0

    def new(self) -> str:
        """The next id, 20 hex digits."""
        now = (time.time_ns() // 1_000_000 << 32) | secrets.randbits(32)
        self._last = max(now, self._last + 1)
        return f"{self._last:020x}"
