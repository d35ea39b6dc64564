"""`opcd` and its commands, each loaded only when it is called. Knows their names, not what they do.

A command lives in a module of this package that holds `app`, a `typer.Typer`. What a command raises on purpose
(`OpcdError`) becomes one line on stderr and its exit code; anything else is a bug and keeps its traceback.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from io import TextIOWrapper
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from opcd_agents.errors import MissingError, OpcdError

INTERRUPTED = 130

# command -> (module, help)
COMMANDS = {
    "play": ("play", "Play a task in the terminal, or watch a model play it."),
    "collect": ("collect", "Let a model play tasks and keep the episodes in a bank."),
    "bank": ("bank", "Look into a bank, and make notes (a context) from its episodes."),
    "distill": ("distill", "Train the notes into the weights of the model that reads them."),
    "rounds": ("rounds", "Collect, make notes and distill, again and again."),
    "eval": ("evaluate", "Score a model without notes, with notes and after distillation."),
    "envs": ("envs", "List what can be played."),
    "demo": ("demo", "The whole loop on one house, from first episodes to the scores."),
}


class Commands(TyperGroup):
    """The top level: a stub with a help text for each command; the one that is called is imported."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Find the command that `args` begins with, and import it."""
        name, stub, rest = super().resolve_command(ctx, args)
        return name, stub if name is None else _load(name), rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command, and turn what it raises on purpose into one line and an exit code."""
        try:
            return super().invoke(ctx)
        except OpcdError as error:
            _complain(str(error))
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            _complain("interrupted; what was acknowledged is kept")
            raise typer.Exit(INTERRUPTED) from error


def main(args: Sequence[str] | None = None) -> None:
    """Run `opcd` with `args` (None: those of the process) and exit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a character must not end a command
    group = Commands(
        name="opcd",
        commands=[TyperCommand(name, help=text) for name, (_, text) in COMMANDS.items()],
        help="Language models that learn to play text games without their notes.",
        epilog="Example: opcd play house:7",
        no_args_is_help=True,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    group.main(args=args, prog_name="opcd")


def _load(name: str) -> Any:
    """Import a command; its help is plain text, like that of the top level, and offers no shell completion."""
    module = f"{__package__}.{COMMANDS[name][0]}"
    try:
        app: typer.Typer = import_module(module).app
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise MissingError(f"wanted the command {name!r}, which this installation lacks ({module})") from error
    app.rich_markup_mode = None
    command = get_command(app)
    command.name = name
    command.params = [p for p in command.params if p.name not in ("install_completion", "show_completion")]
    return command


def _complain(text: str) -> None:
    from cli.console import clean

    sys.stderr.write(f"opcd: {clean(text, one_line=True)}\n")
