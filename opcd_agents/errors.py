"""The errors a user can meet, each with the exit code it ends a command with.

A message says what was wanted, what came and what to do. Knows nothing of who raises it.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar


class OpcdError(Exception):
    """Root of all errors raised on purpose. `exit_code` is what the command line ends with."""

    exit_code: ClassVar[int] = 1


class UsageError(OpcdError, ValueError):
    """What was asked for makes no sense: an unknown name, key or value."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A name that stands for nothing; says which name is nearest."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        """Build the message.

        Args:
            kind: What sort of thing was looked up ("environment", "model", ..).
            name: The name that came.
            known: The names that would have been right.
        """
        known = sorted(known)
        near = get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known) or 'none'}"
        super().__init__(f"unknown {kind} {name!r}; {hint}")


class MissingError(OpcdError, ImportError):
    """A dependency, device or tool that is needed is not there."""

    exit_code = 3


class ShadowedPackageError(MissingError):
    """Another distribution or a local folder stands in front of one of our packages."""


class ModelError(OpcdError):
    """A model folder or endpoint cannot be used."""


class TemplateError(ModelError):
    """A chat template does not keep what was said before as a prefix."""


class AlignmentError(OpcdError, ValueError):
    """Student and teacher rows do not share every sampled id."""


class BankError(OpcdError):
    """A bank cannot be read or written."""


class RunError(OpcdError):
    """A run folder cannot be written or resumed."""


class CheckpointError(RunError):
    """A checkpoint is damaged or belongs to another run."""


class LearnerError(OpcdError):
    """An update that must not be made: loss or gradient is not finite, a row does not fit the model."""


class EngineError(OpcdError):
    """A game engine failed. An episode it happens in ends as `Outcome.FAILED`."""
