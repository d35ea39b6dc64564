"""What reaches the terminal: nothing that could steer it, and no markup."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.console import Progress, ask, clean, say, say_json, say_table

PIECES = [
    "\x1b]52;c;aGk=\x07",
    "\x1b]0;title\x1b\\",
    "\x1b]8;;http://x\x07link\x1b]8;;\x07",
    "\x1b[2J",
    "\x1b[31m",
    "\x1bP1;2|dcs\x1b\\",
    "\x1b_apc\x1b\\",
    "\x9b31m",
    "\x9d0;title\x9c",
    "\u202e",
    "\u2066",
    "\u200b",
    "\ufeff",
    "\ud800",
    "\x00",
    "\x7f",
    "\r",
    "\x08",
    "\x1b",
]
TEXTS = st.lists(st.one_of(st.sampled_from(PIECES), st.text(st.characters(codec=None), max_size=8)), max_size=8).map(
    "".join
)


@settings(max_examples=2000, deadline=None)
@given(TEXTS)
def test_nothing_that_steers_a_terminal_is_left(text):
    left = clean(text)
    assert all(c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs") for c in left)
    assert clean(left) == left
    left.encode()


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_one_line_is_one_line(text):
    assert len(clean(text, one_line=True).splitlines()) <= 1


@pytest.mark.parametrize("piece", [p for p in PIECES if p.startswith(("\x1b", "\x9b", "\x9d")) and "link" not in p])
def test_a_sequence_goes_with_its_content(piece):
    assert clean(f"Hall{piece}") == "Hall"


def test_the_text_of_a_link_stays():
    assert clean("\x1b]8;;http://x\x07link\x1b]8;;\x07") == "link"


def test_a_sequence_without_an_end_takes_its_line_only():
    assert clean("a\x1b]0;never ended\nnext line") == "a\nnext line"


def test_harmless_text_is_untouched():
    text = "You see: a café, 木, “quotes”.\n\tExits: north [door] {x} \\boxed{3}"
    assert clean(text) == text


@pytest.mark.parametrize(
    "text", ["[/]", "[/some/path]", "[link=http://x]y[/link]", "[bold]b[/bold]", ":smile:", "[type=x, v={'a[0]'}]"]
)
def test_markup_is_text(text, capsys):
    say(text, "bold")
    say_table(["a"], [[text]])
    out = capsys.readouterr().out
    assert out.count(text) == 2
    assert "\x1b" not in out


def test_a_table_keeps_each_cell_on_its_line(capsys):
    say_table(["name", "n>"], [["a\nb\x1b[2J", 1], ["c", 20]])
    assert capsys.readouterr().out.splitlines()[1:] == ["a b    1", "c     20"]


def test_json_is_one_line(capsys):
    say_json({"text": "a\nb\x1b\u202e"})
    assert capsys.readouterr().out == '{"text": "a\\nb\\u001b\\u202e"}\n'


def test_progress_without_a_terminal_is_a_line_on_stderr(capsys):
    with Progress("collect", 2) as bar:
        bar.advance()
        bar.advance("50 % won\x1b[2J")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "collect 2/2 50 % won\n"


def test_what_a_person_types_is_cleaned_and_shown(capsys, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda prompt: "go\x1b[A north\u202e")
    assert ask("> ") == "go north"
    assert capsys.readouterr().out == "go north\n"
