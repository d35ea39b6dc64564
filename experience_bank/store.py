"""Where rows are kept: what SQLite and PostgreSQL have in common. Knows no episodes, lessons or contexts."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, TypeVar

from experience_bank.schema import BY_NAME

Value = str | bytes | int | float | None
Row = dict[str, Value]
Mode = Literal["r", "w"]

T = TypeVar("T")


class Store(ABC):
    """An open bank. `?` stands for a value in its SQL, whatever the engine."""

    @property
    @abstractmethod
    def name(self) -> str:
        """How it is called in messages: a path, or a server without its password."""

    @abstractmethod
    def rows(self, sql: str, values: Sequence[Value] = ()) -> list[dict[str, Any]]:
        """The rows that a query gives."""

    @abstractmethod
    def do(self, sql: str, values: Iterable[Sequence[Value]]) -> None:
        """Run one statement for each of `values`, inside `writing`."""

    @abstractmethod
    def writing(self) -> AbstractContextManager[None]:
        """One transaction: durable when the block ends, undone when it raises.

        Raises:
            BankError: The bank was opened to read, is locked, or cannot be written.
        """

    @abstractmethod
    def vacuum(self) -> None:
        """Give back the space of rows that are gone."""

    @abstractmethod
    def close(self) -> None:
        """Let go of it; closing twice is allowed."""

    def transact(self, work: Callable[[], T]) -> T:
        """Do `work` in one transaction, as `writing`.

        Args:
            work: Reads and writes nothing but the store: where a server ends the transaction for the sake of others, it is
                done again from its beginning.
        """
        with self.writing():
            return work()

    @abstractmethod
    def queue_up(self) -> None:
        """Inside `writing`: wait for whoever looks before it writes, and let nobody else do so until the transaction ends."""

    def value(self, sql: str, values: Sequence[Value] = ()) -> Any:
        """The only value that a query gives."""
        [row] = self.rows(sql, values)
        [value] = row.values()
        return value

    def insert(self, table: str, rows: Sequence[Row], known: Literal["refuse", "skip"] = "refuse") -> None:
        """Add rows of all columns, inside `writing`; those whose key is there already are refused or skipped."""
        if rows:
            names = tuple(BY_NAME[table].columns)
            clash = " ON CONFLICT DO NOTHING" if known == "skip" else ""
            sql = f"INSERT INTO {table}({', '.join(names)}) VALUES({', '.join('?' * len(names))}){clash}"
            self.do(sql, ([row[name] for name in names] for row in rows))
