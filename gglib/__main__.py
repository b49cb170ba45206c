"""The ``gglib`` command."""

from __future__ import annotations

import sys

from gglib import __version__

__all__ = ["main"]


def main() -> int:
    """Run the command line and return its exit status."""
    arguments = sys.argv[1:]
    if arguments in (["--version"], ["-V"]):  # answered before anything is imported
        print(f"gglib {__version__}")  # noqa: T201
        return 0
    from gglib.cli.main import run

    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
