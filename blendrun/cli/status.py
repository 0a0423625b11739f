"""`blendrun status`: how far a run is, from another shell."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

_WATCH_SECONDS = 2.0


def status(
    run: Annotated[Path, typer.Argument(help="Output file of a run, or its .blendrun folder.", metavar="RUN")],
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Keep looking until it ends.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the status file (docs/schemas/status.json).")] = False,
) -> None:
    """Show how far a run is: what works, what is done, what is left.

    Reads one file and disturbs nothing.
    """
    import time

    from blendrun.errors import InputMissingError
    from blendrun.report.terminal.status import alive, status_lines
    from blendrun.store.folder import StateFolder
    from blendrun.store.status import read

    path = run / "status.json" if run.is_dir() else StateFolder(run).status
    shown = 0
    while True:
        found = read(path)
        if found is None:
            raise InputMissingError(f"no status in {path.parent}: give the output file of a run that has begun")
        if json:
            sys.stdout.write(path.read_text(encoding="utf-8"))
        else:
            lines = status_lines(found, time.time())
            # On a terminal the new lines take the place of the old ones.
            sys.stdout.write(f"\x1b[{shown}F\x1b[J" if shown and sys.stdout.isatty() else "")
            sys.stdout.write("".join(f"{line}\n" for line in lines))
            shown = len(lines)
        sys.stdout.flush()
        if not watch or alive(found) is False:
            return
        time.sleep(_WATCH_SECONDS)
