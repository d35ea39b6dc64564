"""Shards: a collector that cannot share a file writes one of its own, and hands it over when it is whole.

A shard is a bank in a file `ID.open`; closing renames it to `ID.closed`, and only then may it be moved, copied or merged, so a
network file system is good enough to carry it. One that stayed open belongs to a collector that runs or was killed.
"""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final, final

from experience_bank.ids import Ids
from experience_bank.sqlite import SqliteStore
from experience_bank.store import Store, Value
from opcd_agents.errors import BankError

PREFIX: Final = "shards:"
OPEN, CLOSED = ".open", ".closed"


@final
class ShardStore(Store):
    """The file of one collector; closing hands it over."""

    def __init__(self, folder: Path) -> None:
        """Make it.

        Raises:
            BankError: The folder cannot be written.
        """
        self._name = f"{PREFIX}{folder}"
        self._path = folder / f"{Ids().new()}{OPEN}"
        self._store = SqliteStore.open(self._path, "w")

    @property
    def name(self) -> str:
        """The folder, as it was given."""
        return self._name

    def rows(self, sql: str, values: Sequence[Value] = ()) -> list[dict[str, Any]]:
        """See `Store`."""
        return self._store.rows(sql, values)

    def do(self, sql: str, values: Iterable[Sequence[Value]]) -> None:
        """See `Store`."""
        self._store.do(sql, values)

    def writing(self) -> AbstractContextManager[None]:
        """See `Store`."""
        return self._store.writing()

    def queue_up(self) -> None:
        """See `Store`; nobody else writes here."""

    def vacuum(self) -> None:
        """See `Store`."""
        self._store.vacuum()

    def close(self) -> None:
        """Fold the log in, so that the file alone is the whole shard, and hand it over.

        Raises:
            BankError: It cannot be renamed; it holds all its episodes.
        """
        if not self._path.exists():
            return
        self._store.rows("PRAGMA journal_mode = DELETE")
        self._store.close()
        try:
            self._path.replace(self._path.with_suffix(CLOSED))
        except OSError as error:
            raise BankError(f"{self._path} cannot be renamed ({error.strerror}); it holds all its episodes") from error
        Path(f"{self._path}.writelock").unlink(missing_ok=True)


def shards(folder: Path, abandoned: bool = False) -> list[Path]:
    """The shards in a folder that may be merged, the oldest first.

    Args:
        folder: Where they lie.
        abandoned: Also those that were never closed; whoever asks knows that their collectors are gone.

    Raises:
        BankError: There is no such folder.
    """
    if not folder.is_dir():
        raise BankError(f"wanted a folder of shards, got {folder}, which is none")
    wanted = (OPEN, CLOSED) if abandoned else (CLOSED,)
    return sorted(path for path in folder.iterdir() if path.suffix in wanted)
