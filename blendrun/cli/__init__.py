"""The command line: parsing, wiring and printing. One file a command.

Exit codes are those of `blendrun.errors`; stdout carries data only, all else goes to stderr.
"""

from __future__ import annotations

import sys

from blendrun.cli.app import app
from blendrun.errors import BlendrunError

__all__ = ["main"]


def main() -> None:
    """Entry point of the `blendrun` command."""
    try:
        app(prog_name="blendrun")
    except BlendrunError as error:
        print(f"blendrun: {error}", file=sys.stderr)  # noqa: T201  # the one place errors reach the user
        sys.exit(error.exit_code)
