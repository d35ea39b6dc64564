"""What reaches the terminal: results on stdout, progress on stderr, and nothing that a game or a model could steer.

Every text that was not written in this repository goes through `clean`. Markup is never parsed. Rich honours
NO_COLOR and what is no terminal. Knows no nouns.
"""

import json
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Final, Self
from unicodedata import category

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Table
from rich.text import Text

_PIPED: Final = 200  # columns where there is no terminal to ask
_PATIENCE: Final = 10.0  # seconds between lines of progress where there is no terminal

# In this order: strings with their content (OSC, DCS, SOS, PM, APC; one without an end takes its line), CSI, the rest.
_SEQUENCES: Final = re.compile(
    r"(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)?"
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
    r"|\x1b[ -/]*[0-~]?"
)
_LINE_ENDS: Final = re.compile("\r\n|[\u2028\u2029]")


def clean(text: str, *, one_line: bool = False) -> str:
    """Text that does nothing in a terminal but be read.

    Args:
        text: Any text.
        one_line: Put all on one line, with single spaces.

    Returns:
        The text without escape sequences, control characters but newline and tab, bidirectional controls,
        zero-width characters and lone surrogates.
    """
    text = _LINE_ENDS.sub("\n", _SEQUENCES.sub("", text))
    kept = "".join(c for c in text if c in "\n\t" or (c.isascii() and c.isprintable()) or _is_seen(c))
    return " ".join(kept.split()) if one_line else kept


def _is_seen(character: str) -> bool:
    return category(character) not in ("Cc", "Cf", "Cs")


def stdout() -> Console:
    """The console of results."""
    return _console(sys.stdout.isatty())


def stderr() -> Console:
    """The console of progress."""
    return _console(sys.stderr.isatty(), on_stderr=True)


def _console(is_terminal: bool, on_stderr: bool = False) -> Console:
    width = None if is_terminal else _PIPED
    return Console(stderr=on_stderr, width=width, markup=False, emoji=False, highlight=False)


def say(text: str = "", style: str = "") -> None:
    """Print a text as a result; long lines are left to the terminal."""
    stdout().print(Text(clean(text), style), soft_wrap=True)


def tell(text: str) -> None:
    """Print a line about progress."""
    stderr().print(Text(clean(text), "dim"), soft_wrap=True)


def say_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object on one line, as a result."""
    sys.stdout.write(json.dumps(value, allow_nan=False) + "\n")
    sys.stdout.flush()


def say_table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table as a result. A head that ends with ">" puts its column to the right."""
    table = Table(box=None, pad_edge=False)
    for head in heads:
        right = head.endswith(">")
        # Cells are folded, never cut: an id without its end is of no use.
        name, side = Text(clean(head.removesuffix(">"))), "right" if right else "left"
        table.add_column(name, justify=side, no_wrap=right, overflow="fold")
    for row in rows:
        table.add_row(*(Text(clean(str(cell), one_line=True)) for cell in row))
    stdout().print(table)


class Progress(AbstractContextManager["Progress"]):
    """A bar on stderr for a long loop; where that is no terminal, a line now and then.

    Args:
        what: What is being done, in a word or two.
        total: How many steps there are; None if unknown.
    """

    def __init__(self, what: str, total: int | None = None) -> None:
        self._what = clean(what, one_line=True)
        self._total = total
        self._done = 0
        self._note = ""
        self._told = time.monotonic()
        console = stderr()
        self._bar = _bar(console) if console.is_terminal else None
        self._row = self._bar.add_task("", total=total, what=self._what, note="") if self._bar else None

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
        elif self._done:
            self._print()

    def advance(self, note: str = "") -> None:
        """One more step is done."""
        self.update(self._done + 1, self._total, note)

    def update(self, done: int, total: int | None = None, note: str = "") -> None:
        """So many steps are done, of so many."""
        self._done, self._note = done, clean(note, one_line=True)
        self._total = self._total if total is None else total
        if self._bar and self._row is not None:
            self._bar.update(self._row, completed=done, total=self._total, note=self._note)
        elif time.monotonic() - self._told > _PATIENCE:
            self._print()

    def _print(self) -> None:
        self._told = time.monotonic()
        of = f"/{self._total}" if self._total is not None else ""
        tell(f"{self._what} {self._done}{of} {self._note}".rstrip())


def _bar(console: Console) -> RichProgress:
    return RichProgress(
        TextColumn("{task.fields[what]}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=console,
    )


def ask(prompt: str) -> str:
    """One line from the person at the terminal, cleaned; shown where no terminal echoes it.

    Raises:
        EOFError: There will be no more.
    """
    try:
        said = clean(input(prompt), one_line=True)
    except UnicodeDecodeError:
        said = ""
    if not sys.stdin.isatty():
        say(said)
    return said
