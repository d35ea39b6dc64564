"""The bank: episodes, lessons and contexts in one store, safe for several writers at once.

What is acknowledged is durable: an id is returned only after its transaction is on disk. Each layer can be derived from
the one above it. Knows no environment, model or tokenizer, and does not say what a lesson is worth.
"""

from pathlib import Path
from types import TracebackType
from typing import Self, final

from experience_bank import burial, union
from experience_bank.codec import context_id, lesson_id, packed
from experience_bank.contexts import ContextLayer
from experience_bank.episodes import EpisodeLayer
from experience_bank.lessons import LessonLayer
from experience_bank.shards import PREFIX, ShardStore
from experience_bank.sqlite import SqliteStore
from experience_bank.store import Mode, Row, Store
from opcd_agents.errors import BankError

_SERVERS = ("postgresql://", "postgres://")


def is_server(path: str | Path) -> bool:
    """Whether a bank lies on a server, and in no file."""
    return str(path).startswith(_SERVERS)


@final
class Bank(EpisodeLayer, LessonLayer, ContextLayer):
    """An open bank. Use it as a context manager; one instance serves one thread."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)

    @classmethod
    def open(cls, path: str | Path, mode: Mode = "w") -> "Bank":
        """Open a bank.

        Args:
            path: A file (SQLite keeps a log beside it while it is open), `postgresql://user@host/database`, or `shards:DIR` for a
                new file in a folder that is handed over when it is closed.
            mode: "w" makes the bank if there is none; "r" never makes one and never writes to it; shards are only written.

        Raises:
            BankError: There is no bank there, it cannot be used, or it has another schema version.
            MissingError: The bank is on a server, and psycopg is not installed.
        """
        if is_server(path):
            from experience_bank.postgres import PostgresStore

            return cls(PostgresStore.open(str(path), mode))
        if str(path).startswith(PREFIX):
            if mode == "r":
                raise BankError(
                    f"shards are read when they are merged: run `opcd bank merge {path}`, and read that bank"
                )
            return cls(ShardStore(Path(str(path).removeprefix(PREFIX))))
        try:
            return cls(SqliteStore.open(path, mode))
        except ValueError as error:
            raise BankError(f"{path!r} cannot be a path: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def name(self) -> str:
        """How it is called in messages."""
        return self._store.name

    def close(self) -> None:
        """Close the bank; closing twice is allowed."""
        self._store.close()

    def counts(self) -> dict[str, int]:
        """How many `episodes`, `turns`, `lessons` and `contexts` the bank holds."""
        tables = ("episodes", "turns", "lessons", "contexts")
        return {table: self._store.value(f"SELECT count(*) FROM {table}") for table in tables}

    def digest(self) -> str:
        """sha256 (hex) of all that the bank holds; the same for any two that hold the same, in whatever order it came."""
        return union.bank_digest(self._store)

    def merge(self, other: "Bank") -> dict[str, int]:
        """Add what another bank holds: a union, in either order and however often.

        Returns:
            Table to the number of rows that were new.

        Raises:
            BankError: This bank cannot be written; nothing was added.
        """
        return union.merge(self._store, other._store)

    def take_episodes(self, other: "Bank") -> dict[str, int]:
        """Add only the episodes that another bank holds, and believe nothing else that it says.

        Returns:
            As `merge`.
        """
        return union.take_episodes(self._store, other._store)

    def forget(self, name: str, reason: str) -> str:
        """Remove an episode and what it showed, and remember that it is to stay away when banks are merged.

        A lesson that only it showed is retired; one that nothing ever showed (somebody told it) stays.

        Args:
            name: Its id or the beginning of one.
            reason: Why.

        Returns:
            Its id.
        """
        key = self._find("episodes", "episode", name)["id"]
        stone: Row = {"id": self._ids.new(), "episode_id": key, "reason": packed(reason)}

        def bury() -> str:
            self._store.queue_up()
            self._store.insert("tombstones", [stone])
            burial.buried_by(self._store, burial.bury(self._store))
            return key

        return self._store.transact(bury)

    def compact(self) -> int:
        """Remove the blobs that no turn names any more and give their space back; returns how many."""
        orphans = "SELECT id FROM blobs WHERE id NOT IN (SELECT admissible FROM turns WHERE admissible IS NOT NULL)"
        found = len(self._store.rows(orphans))
        with self._store.writing():
            self._store.do(f"DELETE FROM blobs WHERE id IN ({orphans})", [()])
        self._store.vacuum()
        return found

    def quarantined(self) -> list[dict[str, str]]:
        """What clashed with what was here: `kind`, `name`, `digest` and `reason` of each."""
        return self._store.rows("SELECT kind, name, digest, reason FROM quarantine ORDER BY kind, name, digest")

    def verify(self) -> list[str]:
        """Ids of the episodes, lessons and contexts whose content no longer matches what it was stored under."""
        logged = self.statuses()
        lessons = [key for key, one in self.lessons(status=None) if lesson_id(one) != key or key not in logged]
        made = {c.id: context_id(c.text, c.renderer, c.tokenizer) for c in self.contexts() if c.renderer}
        return [*super().verify(), *lessons, *(key for key, found in made.items() if key != found)]
