"""Banks out into files that others read, and files of others in. Knows no command line.

    export(bank, "bank.jsonl", "jsonl")        load(bank, "bank.jsonl")

An import is whole or not at all, and the second time it changes nothing. What comes from others brings its episodes, and its lessons into
quarantine; only a bank that is `trusted` (one's own backup) arrives as it was, as in a merge. Conversations say in their code version that
they were imported.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from experience_bank.bank import Bank
from experience_bank.exchange import archives, atif, chat, farama, lines, others, tables
from experience_bank.exchange.files import Source, new_file, new_folder, shown
from experience_bank.exchange.intake import Intake
from opcd_agents.errors import BankError, UnknownNameError

__all__ = ["EXPORTS", "IMPORTS", "Report", "export", "load"]

_FILES: Final[Mapping[str, Callable[[Bank, IO[bytes]], dict[str, int]]]] = {"jsonl": lines.write, "chat": chat.write}
_FOLDERS: Final[Mapping[str, Callable[[Bank, Path], dict[str, int]]]] = {
    "atif": atif.write, "parquet": tables.write, "minari": farama.write,
}  # fmt: skip
_READERS: Final[Mapping[str, Callable[[Source, Intake, str], None]]] = {
    "jsonl": lambda source, intake, _: lines.read(source, intake),
    "chat": chat.read,
    "atif": atif.read,
    **{name: others.reader(name) for name in others.FORMATS},
}
EXPORTS: Final = tuple(sorted([*_FILES, *_FOLDERS]))
IMPORTS: Final = tuple(sorted([*_READERS, "parquet"]))

# What a file holds, by how it begins; the first that fits.
_SIGNS: Final = (
    ("jsonl", re.compile(rb'^\{"kind": "bank", "format": "opcd-bank"')),
    ("atif", re.compile(rb'^\s*\{\s*"schema_version":\s*"ATIF')),
    ("chat", re.compile(rb'^\s*\{\s*"messages":|^\s*\{[^\n]*"messages":\s*\[')),
    ("reasoningbank", re.compile(rb'^\s*\{[^\n]*"(?:memory_items|title|task_id)":')),
    ("ace", re.compile(rb"^[^\n]*\[[^\]\n]+\]\s*helpful=\d+\s*harmful=\d+\s*::", re.MULTILINE)),
    ("opcd", re.compile(rb"EXPERIENCE ITEM\W{0,4}:", re.IGNORECASE)),
)


@dataclass(frozen=True)
class Report:
    """What an export wrote or an import brought.

    Attributes:
        path: The file or folder.
        formats: In which formats it is, in order of their names.
        counts: Table to the number of rows that were written, or were new in the bank.
        notes: What was left out and why, one line each.
    """

    path: Path
    formats: tuple[str, ...]
    counts: Mapping[str, int]
    notes: tuple[str, ...] = ()


def export(bank: Bank, path: str | Path, format: str) -> Report:
    """Write a bank to a new file or folder; it is there whole or not at all.

    Args:
        bank: The bank.
        path: Where; nothing may be there yet.
        format: `jsonl` (everything; the only one that loses nothing), `chat` (messages, a line an episode), `atif` (a file an episode), `parquet`
            (a folder that Hugging Face `datasets` reads), `minari`.

    Raises:
        UnknownNameError: There is no such format.
        BankError: The file cannot be written, or the bank is damaged.
        MissingError: The format needs a package that is not installed.
    """
    target = Path(path)
    if format in _FILES:
        with new_file(target) as file:
            counts = _FILES[format](bank, file)
    elif format in _FOLDERS:
        with new_folder(target) as folder:
            counts = _FOLDERS[format](bank, folder)
    else:
        raise UnknownNameError("format", format, EXPORTS)
    return Report(target, (format,), counts)


def load(bank: Bank, path: str | Path, format: str | None = None, *, trusted: bool = False) -> Report:
    """Bring a file, a folder or an archive (zip, tar, tar.gz) of files into a bank.

    Args:
        bank: The bank.
        path: The file, folder or archive.
        format: One of `IMPORTS`; None: each file is what it looks like, and one that looks like nothing is left out.
        trusted: Whether what a bank says of itself is believed: its tombstones, logs, votes, contexts and validations.

    Raises:
        UnknownNameError: There is no such format.
        BankError: There is nothing to import, something cannot be read, or the bank cannot be written; where a file was at fault, nothing was
            brought in.
        MissingError: The format needs a package that is not installed.
    """
    source = Path(path)
    if format is not None and format not in IMPORTS:
        raise UnknownNameError("format", format, IMPORTS)
    _refuse_odd(source)
    with Intake() as intake:
        if source.is_dir() and (format == "parquet" or tables.is_folder(source)):
            tables.read(source, intake)
            formats = ("parquet",)
        else:
            formats = _read_all(source, intake, format)
        intake.check(shown(source.name))
        counts = intake.bring_in(bank, source.name, trusted=trusted)
        return Report(source, formats, dict(counts), tuple(intake.notes))


def _refuse_odd(path: Path) -> None:
    try:
        if not path.exists():
            raise BankError(f"nothing is at {path}; name a file, folder or archive")
        if not (path.is_file() or path.is_dir()):
            raise BankError(f"{path} is neither a file nor a folder; name another")
    except (OSError, ValueError) as error:
        raise BankError(f"{shown(path)!r} cannot be opened ({error}); name another") from error


def _read_all(path: Path, intake: Intake, format: str | None) -> tuple[str, ...]:
    found: Counter[str] = Counter()
    if path.is_dir() or _begins_like_archive(path):
        with closing(archives.members(path)) as sources:
            for source in sources:
                found.update(_read(source, intake, format))
    else:
        try:
            with path.open("rb") as stream:
                found.update(_read(Source(path.name, stream), intake, format))
        except OSError as error:
            raise BankError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
    if not found:
        known = ", ".join(IMPORTS)
        raise BankError(f"{path} holds nothing that looks like a bank, episodes or lessons; say which it is: {known}")
    return tuple(sorted(found))


def _begins_like_archive(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return archives.is_archive(path, stream.read(512))
    except OSError as error:
        raise BankError(f"{path} cannot be read ({error.strerror}); check its permissions") from error


def _read(source: Source, intake: Intake, format: str | None) -> list[str]:
    if archives.is_archive(Path(source.name), source.head):
        intake.notes.append(f"{source.name}: left out, an archive in another")
        return []
    name = format or next((name for name, sign in _SIGNS if sign.search(source.head)), None)
    if name not in _READERS:
        intake.notes.append(f"{source.name}: left out, it looks like nothing that can be imported")
        return []
    if name in ("chat", "atif"):
        return _read_played(source, intake, name)
    _READERS[name](source, intake, "")
    return [name]


def _read_played(source: Source, intake: Intake, name: str) -> list[str]:
    content = source.whole()
    came = f"import:{name} {source.name} sha256:{hashlib.sha256(content).hexdigest()[:16]}"
    _READERS[name](Source.of(source.name, content), intake, came)
    return [name]
