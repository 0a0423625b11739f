"""The command line: parsing, wiring and printing. One file a command.

Exit codes are those of `blendrun.errors`; stdout carries data only, all else goes to stderr.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from blendrun.cli.app import parser
from blendrun.errors import BlendrunError
from blendrun.text import printable

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the `blendrun` command. argv: what follows its name; None for this process's own.

    Always ends with SystemExit, whose code is the command's exit code.
    """
    _hold_standard_descriptors()
    # Whatever this process starts imports nothing from the folder that it happens to run in.
    os.environ["PYTHONSAFEPATH"] = "1"
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        # A shell that completes a line has it in variables, and may want any command.
        first = words[0] if words and "_BLENDRUN_COMPLETE" not in os.environ else ""
        parser(first)(words, prog_name="blendrun", obj=tuple(words))
    except BlendrunError as error:
        with suppress(OSError):
            print(f"blendrun: {printable(str(error), lines=True)}", file=sys.stderr)  # noqa: T201  # the one place errors reach the user
        sys.exit(error.exit_code)


def _hold_standard_descriptors() -> None:
    """Where the caller closed 0, 1 or 2 (cron scripts do), open /dev/null there.

    Else the journal would get that number, and whatever prints to it would write into the journal.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  # open until the process ends
