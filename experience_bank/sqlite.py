"""A bank in one SQLite file, its write lock, its version and its errors. Knows no episodes, lessons or contexts.

Writers queue at a file lock beside the bank, so that neither SQLite's busy waiting nor two checkpoints
at once (a fault of SQLite before 3.51.3) can hurt; readers never wait for writers.
"""

import os
import sqlite3
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, final

from experience_bank.filesystem import is_network, kind_of
from experience_bank.migrate import migrate
from experience_bank.queue import Queue
from experience_bank.schema import APPLICATION_ID, INDEXES, SCHEMA_VERSION, TABLES
from experience_bank.store import Mode, Store, Value
from opcd_agents.errors import BankError

# Seconds a writer waits for the others; an episode takes them milliseconds.
PATIENCE: Final = 60.0

_HEADER: Final = b"SQLite format 3\0"

_CURES: Final = {
    sqlite3.SQLITE_BUSY: "another program holds the bank; end it or try again",
    sqlite3.SQLITE_LOCKED: "another program holds the bank; end it or try again",
    sqlite3.SQLITE_PERM: "no permission to use it",
    sqlite3.SQLITE_READONLY: "it cannot be written; check the permissions of file and folder",
    sqlite3.SQLITE_IOERR: "the disk failed; nothing of this was stored",
    sqlite3.SQLITE_CORRUPT: "the file is damaged; restore a copy",
    sqlite3.SQLITE_FULL: "the disk is full; nothing of this was stored",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; check path and permissions",
    sqlite3.SQLITE_NOTADB: "this is no bank (not an SQLite file); name another file",
}


@final
class SqliteStore(Store):
    """An open bank file."""

    def __init__(self, path: Path, connection: sqlite3.Connection, mode: Mode, name: str) -> None:
        self.path = path
        self._name = name
        self._db = connection
        self._mode: Mode = mode
        self._queue = Queue(Path(f"{path}.writelock"), PATIENCE)

    @classmethod
    def open(cls, path: str | Path, mode: Mode) -> "SqliteStore":
        """Open `path`; "w" makes the bank if there is none, "r" never makes and never writes one.

        Raises:
            BankError: There is no bank, it cannot be used, or it has another schema version.
        """
        with _explained(path):
            real = Path(os.path.realpath(path))
            _refuse_odd(real, mode)
            connection = _connect(real, mode)
            store = cls(real, connection, mode, str(path))
        try:
            store._make_ready()
        except BaseException:
            connection.close()
            raise
        return store

    @property
    def name(self) -> str:
        """The path as it was given."""
        return self._name

    def rows(self, sql: str, values: Sequence[Value] = ()) -> list[dict[str, Any]]:
        """See `Store`."""
        with _explained(self.path):
            return [dict(row) for row in self._db.execute(sql, values)]

    def do(self, sql: str, values: Iterable[Sequence[Value]]) -> None:
        """See `Store`."""
        self._db.executemany(sql, values)

    @contextmanager
    def writing(self) -> Generator[None]:
        """See `Store`; the transaction runs under the write lock."""
        if self._mode == "r":
            raise BankError(f"{self.path} was opened to read; open it with mode 'w' to write")
        with _explained(self.path), self._queue.turn():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def queue_up(self) -> None:
        """See `Store`; the write lock does so anyway."""

    def vacuum(self) -> None:
        """See `Store`."""
        with _explained(self.path), self._queue.turn():
            self._db.execute("VACUUM")

    def close(self) -> None:
        """Close the file. A writer does so under the lock: the last one to leave checkpoints."""
        if self._mode == "r":
            self._db.close()
            return
        try:
            with self._queue.turn():
                self._db.close()
        except OSError:  # the lock cannot be had: the next writer checkpoints
            self._db.close()
        self._queue.close()

    def _make_ready(self) -> None:
        with _explained(self.path):
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA foreign_keys = ON")
        if self._is_empty() and self._mode == "w":
            self._create()
        if self._is_empty():
            raise BankError(f"{self.path} is empty; fill it with `opcd collect` first")
        application, version = self._versions()
        _check_version(self.path, application, version, self._mode)
        if version < SCHEMA_VERSION:
            self._migrate(version)

    def _is_empty(self) -> bool:
        return self._versions()[0] == 0 and not self.value("SELECT count(*) FROM sqlite_master")

    def _versions(self) -> tuple[int, int]:
        return self.value("PRAGMA application_id"), self.value("PRAGMA user_version")

    def _migrate(self, version: int) -> None:
        with _explained(self.path), self._queue.turn():
            backup = Path(f"{self.path}.version-{version}")
            if not backup.exists():
                _copy(self._db, backup)
        with self.writing():
            if self._versions()[1] == version:  # another writer may have been quicker
                migrate(self._db)
                self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _create(self) -> None:
        with _explained(self.path), self._queue.turn():
            journal = self._db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if journal != "wal":
            raise BankError(f"{self.path}: wanted a write-ahead log, got {journal!r}; use a local disk")
        with self.writing():
            if self._is_empty():  # another writer may have been quicker
                for statement in (*(table.sql for table in TABLES), *INDEXES):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _refuse_odd(path: Path, mode: Mode) -> None:
    if path.is_dir():
        raise BankError(f"{path} is a folder; name a file in it, such as {path / 'bank.db'}")
    if path.exists() and not path.is_file():
        raise BankError(f"{path} is not a regular file; name another")
    # SQLite takes a file of a few bytes for an empty one, and would write over it.
    if path.exists() and _first_bytes(path) not in (b"", _HEADER):
        raise BankError(f"{path}: {_CURES[sqlite3.SQLITE_NOTADB]}")
    if mode == "r" and not path.exists():
        raise BankError(f"no bank at {path}; make one with `opcd collect` or name another file")
    if mode == "w":
        path.parent.mkdir(parents=True, exist_ok=True)
        if is_network(kind := kind_of(path)):
            raise BankError(
                f"{path} lies on {kind}, a network file system, where SQLite cannot keep a bank safe; use a local disk, "
                "shards:DIR for collectors, or a PostgreSQL server"
            )


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(_HEADER))


def _connect(path: Path, mode: Mode) -> sqlite3.Connection:
    way = "mode=rwc" if mode == "w" else _reading_way(path)
    uri = f"{path.as_uri()}?{way}"
    connection = sqlite3.connect(uri, timeout=PATIENCE, isolation_level=None, uri=True)
    connection.row_factory = sqlite3.Row
    return connection


def _reading_way(path: Path) -> str:
    # SQLite wants to put a -shm file beside a bank it reads. In a folder where that is not allowed and where
    # no writer has left a log, the file alone is the whole truth.
    logged = Path(f"{path}-wal").exists()
    return "mode=ro" if logged or os.access(path.parent, os.W_OK) else "mode=ro&immutable=1"


def _check_version(path: Path, application: int, version: int, mode: Mode) -> None:
    if application != APPLICATION_ID:
        raise BankError(f"{path} is an SQLite file but no bank; name another file")
    if version == SCHEMA_VERSION or (mode == "w" and 0 < version < SCHEMA_VERSION):
        return
    older = "`opcd bank migrate` makes it one of this version" if version > 0 else "use the version that made it"
    cure = "upgrade opcd-agents" if version > SCHEMA_VERSION else older
    raise BankError(f"{path} has schema version {version}, this program knows version {SCHEMA_VERSION}; {cure}")


def _copy(database: sqlite3.Connection, target: Path) -> None:
    """A whole copy at `target`, or none."""
    beside = target.with_name(f"{target.name}.part")
    beside.unlink(missing_ok=True)
    with closing(sqlite3.connect(beside)) as copy:
        database.backup(copy)
    with beside.open("rb") as file:
        os.fsync(file.fileno())
    beside.replace(target)


@contextmanager
def _explained(path: str | Path) -> Generator[None]:
    """Turn what SQLite, the lock and the file system raise into one clear line."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte: without the finer shade
        raise BankError(f"{path}: {_CURES.get(code, 'SQLite refused')} ({error})") from error
    except TimeoutError as error:
        raise BankError(f"{path}: {_CURES[sqlite3.SQLITE_BUSY]} (waited {PATIENCE:g} s)") from error
    except OSError as error:
        raise BankError(f"{path}: {error.strerror or error}; check path and permissions") from error
    except OverflowError as error:
        raise BankError(f"{path}: wanted numbers of at most 64 bits ({error})") from error
