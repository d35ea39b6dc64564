"""The way in: `opcd` and `python -m opcd_agents`. Knows only that `cli.main` is the command line."""

import sys


def main() -> None:
    """Run the command line; where a stranger stands in front of our packages, say so and exit 3."""
    from opcd_agents import _guard

    try:
        _guard.check()
        from cli.main import main as command_line

        command_line()
    except ImportError as error:
        shadowed = _guard.explain(error)
        if shadowed is None:
            raise
        sys.stderr.write(f"opcd: {shadowed}\n")
        sys.exit(shadowed.exit_code)
    except KeyboardInterrupt:  # before there was a command to interrupt
        sys.exit(130)


if __name__ == "__main__":
    main()
