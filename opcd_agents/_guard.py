"""Tells who stands in front of our packages: `envs` and `cli` are names that others use too.

`check` is cheap and runs at every start; `explain` looks through all installed distributions and runs only
after an import failed. Imports none of the packages it speaks of.
"""

from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path

from opcd_agents.errors import ShadowedPackageError

NAMES = ("cli", "envs", "experience_bank")
DISTRIBUTION = "opcd-agents"
_HOME = Path(__file__).resolve().parent.parent


def check() -> None:
    """See that our packages would be imported from where `opcd_agents` lies.

    Raises:
        ShadowedPackageError: One is missing, or another folder, module or package comes first.
    """
    for name in NAMES:
        found = _found(name)
        if found != _HOME / name:
            raise _missing(name) if found is None else _in_front(name, found)


def explain(error: ImportError) -> ShadowedPackageError | None:
    """Who is to blame for a failed import; None where it is none of our packages.

    Args:
        error: What was raised while a command was loaded or ran.
    """
    if isinstance(error, ShadowedPackageError):
        return error
    name = (error.name or "").partition(".")[0]
    if name not in NAMES:
        return None
    strangers = _strangers(name)
    return _overwritten(name, strangers) if strangers else None


def _found(name: str) -> Path | None:
    """Where the import of `name` leads: a package folder, or the file of a module; None where it fails."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:  # nothing there, or a folder without __init__.py
        return None
    origin = Path(spec.origin).resolve()
    return origin.parent if origin.name == "__init__.py" else origin


def _strangers(name: str) -> list[str]:
    """Other installed distributions that bring a package or module `name`."""
    return sorted(set(packages_distributions().get(name, [])) - {DISTRIBUTION})


def _missing(name: str) -> ShadowedPackageError:
    return ShadowedPackageError(
        f"wanted our package {name!r} in {_HOME}, found none (did another package of that name take it along when "
        f"it was uninstalled?); reinstall {DISTRIBUTION}: pip install --force-reinstall --no-deps {DISTRIBUTION}"
    )


def _in_front(name: str, found: Path) -> ShadowedPackageError:
    strangers = _strangers(name)
    cure = "start with `opcd` or `python -P -m opcd_agents`, or rename what stands there"
    if strangers:
        cure = f"pip uninstall {' '.join(strangers)}, or install {DISTRIBUTION} into an environment of its own"
    return ShadowedPackageError(f"wanted our package {name!r} from {_HOME}, but {found} comes first; {cure}")


def _overwritten(name: str, strangers: list[str]) -> ShadowedPackageError:
    owners = ", ".join(strangers)
    return ShadowedPackageError(
        f"wanted our package {name!r}, but it was overwritten by another distribution ({owners}); "
        f"pip uninstall {' '.join(strangers)}, then pip install --force-reinstall --no-deps {DISTRIBUTION}"
    )
