"""In what state a bank is, and the SQLite beneath it. Reads only, and survives what it looks at."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from experience_bank.bank import Bank, is_server
from experience_bank.filesystem import is_network, kind_of
from experience_bank.postgres import masked
from experience_bank.queue import Queue
from opcd_agents.errors import OpcdError

# SQLite 3.7.0 to 3.51.2 may damage a bank where two connections write or checkpoint at once (sqlite.org/wal.html);
# mended in these, and all after the last.
_MENDED: Final = ((3, 44, 6), (3, 50, 7))
_SINCE: Final = (3, 51, 3)

Finding = tuple[str, str, bool]  # what was looked at, what was found, whether it is well


def examine(bank: str) -> tuple[str, list[Finding]]:
    """Look at a bank from below upwards; what fails is a finding, and ends only what builds on it.

    Returns:
        How the bank is called, and what was found; of a bank on a server only what it holds.
    """
    if is_server(bank):
        return masked(bank), list(_content(bank))
    return bank, list(_findings(Path(bank)))


def has_reset_bug(version: tuple[int, ...]) -> bool:
    """Whether this SQLite has the fault that the write lock keeps from happening."""
    return version < _SINCE and not any(version[:2] == mended[:2] and version >= mended for mended in _MENDED)


def _findings(path: Path) -> Iterator[Finding]:
    bug = (
        "; has the WAL-reset fault, which the write lock keeps away"
        if has_reset_bug(sqlite3.sqlite_version_info)
        else ""
    )
    yield "sqlite", f"{sqlite3.sqlite_version}{bug}", True
    kind = kind_of(path.resolve())
    yield "file system", kind or "unknown", not is_network(kind)
    if not path.is_file():
        yield "file", f"there is none at {path}", False
        return
    yield "size", f"{path.stat().st_size:,} bytes", True
    yield _lock(path)
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            said = [str(row[0]) for row in database.execute("PRAGMA integrity_check(5)")]
    except sqlite3.Error as error:
        said = [str(error)]
    yield "pages", "; ".join(said)[:200], said == ["ok"]
    yield from _content(path)


def _lock(path: Path) -> Finding:
    if not Path(f"{path}.writelock").exists():  # to look must not make it
        return "write lock", "free", True
    try:
        with Queue(Path(f"{path}.writelock"), 0.5).turn():
            return "write lock", "free", True
    except TimeoutError:
        return "write lock", "held: another program is writing, or hangs", True
    except OSError as error:
        return "write lock", f"cannot be taken: {error.strerror}", True


def _content(path: str | Path) -> Iterator[Finding]:
    try:
        with Bank.open(path, "r") as bank:
            counts, bad, apart = bank.counts(), bank.verify(), bank.quarantined()
    except OpcdError as error:
        yield "content", str(error)[:200], False
        return
    yield "content", ", ".join(f"{number} {what}" for what, number in counts.items()), True
    yield "digests", f"{len(bad)} do not match: {', '.join(bad[:3])}" if bad else "all match", not bad
    yield "quarantine", f"{len(apart)} rows", not apart
