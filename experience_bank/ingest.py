"""Take in the shards that collectors hand over, for as long as one likes. Knows no episodes, only banks."""

from collections import Counter
from pathlib import Path
from typing import final

from experience_bank.bank import Bank
from experience_bank.shards import shards
from opcd_agents.errors import BankError


@final
class Ingester:
    """Merges each shard of a folder once; what is merged twice all the same (after a restart) changes nothing.

    Args:
        folder: Where collectors put their shards.
        abandoned: Also shards that were never closed; see `shards`.
    """

    def __init__(self, folder: Path, abandoned: bool = False) -> None:
        self._folder = folder
        self._abandoned = abandoned
        self._seen: set[tuple[str, int, int]] = set()
        self.taken = 0
        self.refused: dict[str, str] = {}

    def take(self, target: Bank) -> Counter[str]:
        """Merge what is new.

        A shard that cannot be read is told in `refused` and tried again only when its file has changed: a copy over a network
        may not be whole yet.

        Returns:
            Table to the number of rows that were new.

        Raises:
            BankError: There is no such folder, or the bank cannot be written.
        """
        new: Counter[str] = Counter()
        found = shards(self._folder, self._abandoned)
        self.refused = {path.name: self.refused[path.name] for path in found if path.name in self.refused}
        for path in found:
            try:
                stat = path.stat()
            except OSError as error:  # moved meanwhile, or a link to nothing
                self.refused[path.name] = f"{path}: {error.strerror}"
                continue
            key = path.name, stat.st_size, stat.st_mtime_ns
            if key in self._seen:
                continue
            self._seen.add(key)
            if (reason := _unreadable(path)) is not None:
                self.refused[path.name] = reason
                continue
            with Bank.open(path, "r") as shard:
                new.update(target.merge(shard))
            self.refused.pop(path.name, None)
            self.taken += 1
        return new


def _unreadable(path: Path) -> str | None:
    """Why a shard cannot be read to its end. Asked before it is merged, so that what fails there is the bank's own trouble."""
    try:
        with Bank.open(path, "r") as shard:
            shard.verify()
            shard.digest()  # reads what `verify` does not
    except (BankError, OSError, ValueError, TypeError) as error:  # a damaged page may give a value of any kind
        return str(error)
    return None
