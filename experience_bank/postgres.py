"""A bank on a PostgreSQL server, for collectors on many hosts. Knows no episodes, lessons or contexts.

The server queues writers and keeps what it acknowledged; this module only makes the tables and explains errors.
"""

import random
import re
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

from experience_bank.schema import APPLICATION_ID, INDEXES, SCHEMA_VERSION, TABLES
from experience_bank.store import Mode, Store, Value
from opcd_agents.errors import BankError, MissingError

if TYPE_CHECKING:
    import psycopg

T = TypeVar("T")

_PASSWORD: Final = re.compile(r"(?<=://)([^:@/?]*):[^?]*@")
_PARAMETER: Final = re.compile(r"([?&][^=&]*password=)[^&]*", re.IGNORECASE)
_PATIENCE: Final = 10  # seconds to reach the server
_TRIES: Final = 6  # of a transaction that others stand in the way of
_MERGING: Final = APPLICATION_ID + 1  # the lock of those who look before they write


def masked(dsn: str) -> str:
    """The address of a server without its password."""
    return _PARAMETER.sub(r"\1***", _PASSWORD.sub(r"\1@", dsn))


@final
class PostgresStore(Store):
    """A connection to a server. Everything lies in the schema that the connection has first in its search path."""

    def __init__(self, name: str, connection: "psycopg.Connection[dict[str, Any]]", mode: Mode) -> None:
        self._name = name
        self._db = connection
        self._mode: Mode = mode

    @classmethod
    def open(cls, dsn: str, mode: Mode) -> "PostgresStore":
        """Connect; "w" makes the tables if there are none, "r" never makes and never writes any.

        Raises:
            BankError: There is no bank, it cannot be used, or it has another schema version.
            MissingError: psycopg is not installed.
        """
        if find_spec("psycopg") is None:
            raise MissingError("a bank on a server needs psycopg; pip install 'opcd-agents[postgres]'")
        import psycopg
        from psycopg.rows import dict_row

        name = masked(dsn)
        with _explained(name):
            connection = psycopg.Connection[dict[str, Any]].connect(
                dsn, autocommit=True, row_factory=dict_row, connect_timeout=_PATIENCE
            )
        store = cls(name, connection, mode)
        try:
            store._make_ready()
        except BaseException:
            connection.close()
            raise
        return store

    @property
    def name(self) -> str:
        """The address without its password."""
        return self._name

    def rows(self, sql: str, values: Sequence[Value] = ()) -> list[dict[str, Any]]:
        """See `Store`."""
        with _explained(self._name):
            return self._db.execute(_query(sql), values).fetchall()

    def do(self, sql: str, values: Iterable[Sequence[Value]]) -> None:
        """See `Store`."""
        with self._db.cursor() as cursor:
            cursor.executemany(_query(sql), values)

    @contextmanager
    def writing(self) -> Generator[None]:
        """See `Store`."""
        if self._mode == "r":
            raise BankError(f"{self._name} was opened to read; open it with mode 'w' to write")
        with _explained(self._name), self._db.transaction():
            yield

    def transact(self, work: Callable[[], T]) -> T:
        """See `Store`."""
        from psycopg.errors import DeadlockDetected, SerializationFailure

        for number in range(1, _TRIES):
            try:
                return super().transact(work)
            except BankError as error:
                if not isinstance(error.__cause__, DeadlockDetected | SerializationFailure):
                    raise
                time.sleep(random.uniform(0, 0.1 * number))  # so that the same two do not meet again
        return super().transact(work)

    def queue_up(self) -> None:
        """See `Store`; in a file writers queue anyway."""
        self.execute(f"SELECT pg_advisory_xact_lock({_MERGING})")

    def vacuum(self) -> None:
        """See `Store`; the server does so by itself as well."""
        self.execute("VACUUM")

    def close(self) -> None:
        """See `Store`."""
        self._db.close()

    def _make_ready(self) -> None:
        if self._mode == "r":
            self.execute("SET default_transaction_read_only = on")
        elif self._version() is None:
            self._create()
        version = self._version()
        if version is None:
            raise BankError(f"{self._name} holds no bank; fill it with `opcd collect` first")
        if version != SCHEMA_VERSION:
            raise BankError(
                f"{self._name} has schema version {version}, this program knows version {SCHEMA_VERSION}; "
                "use the version of opcd-agents that made it"
            )

    def execute(self, sql: str) -> None:
        """Run a statement without values."""
        with _explained(self._name):
            self._db.execute(sql.encode())

    def _version(self) -> int | None:
        if self.value("SELECT to_regclass('opcd_bank') IS NOT NULL AS there"):
            return self.value("SELECT version FROM opcd_bank")
        return None

    def _create(self) -> None:
        # Before the transaction: one that has begun may not see the tables that another made meanwhile.
        self.execute(f"SELECT pg_advisory_lock({APPLICATION_ID})")
        try:
            with self.writing():
                if self._version() is None:
                    for statement in (*(table.sql for table in TABLES), *INDEXES):
                        self.execute(statement)
                    self.execute("CREATE TABLE opcd_bank(version BIGINT NOT NULL)")
                    self.execute(f"INSERT INTO opcd_bank VALUES({SCHEMA_VERSION})")
        finally:
            self.execute(f"SELECT pg_advisory_unlock({APPLICATION_ID})")


def _query(sql: str) -> bytes:
    return sql.replace("%", "%%").replace("?", "%s").encode()


@contextmanager
def _explained(name: str) -> Generator[None]:
    """Turn what the server says into one clear line."""
    import psycopg

    try:
        yield
    except psycopg.OperationalError as error:
        raise BankError(
            f"{name}: the server cannot be used ({_line(error)}); check address, user and database"
        ) from error
    except psycopg.Error as error:
        raise BankError(f"{name}: PostgreSQL refused ({_line(error)})") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
