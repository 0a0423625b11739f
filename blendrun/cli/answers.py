"""`blendrun answers`: the answers of a run while it works, and of one that was stopped."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

if TYPE_CHECKING:
    from blendrun.store.guard import Target
    from blendrun.store.journal_tail import JournalTail

_LOOK_SECONDS = 0.5


def answers(
    run: Annotated[Path, typer.Argument(help="Output file of a run, or its .blendrun folder.", metavar="RUN")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write them here, not to stdout.", metavar="FILE")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
    errors: Annotated[bool, typer.Option("--errors", help="Also the lines of requests that an engine failed.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there already.")] = False,
) -> None:
    """Print the answers that a run has so far, in the order in which they came; each is a line of its output.

    With --follow a run that was killed is waited for, until the same command goes on with it. Exit codes: 0 the run is
    done, or this was all there is so far; 75 with --follow: the run was stopped, and the same command goes on with it.
    """
    from blendrun.errors import EXIT_OK, InputMissingError
    from blendrun.store.folder import StateFolder, path_text
    from blendrun.store.guard import Target
    from blendrun.store.journal_tail import JournalTail
    from blendrun.store.manifest import read_inputs
    from blendrun.store.tables.kind import check_lines

    state = StateFolder.at(run) if run.is_dir() else StateFolder(run)
    if not state.path.is_dir():
        raise InputMissingError(f"no run has left its state in {path_text(state.path)}: give the output file of a run")
    tail = JournalTail(state.journal, errors)
    if output is None or str(output) == "-":
        code = _pass_on(tail, state.status, follow)
    else:
        check_lines(output, "-o", f", and when the run is done: blendrun convert {state.output} -o {output}")
        own = (state.path, state.output, state.errors, *read_inputs(state.manifest))
        target = Target(output, "--output", own=own, overwrite=overwrite)
        code = _write(tail, state.status, follow, target)
    if code != EXIT_OK:
        raise typer.Exit(code)


def _pass_on(tail: JournalTail, status: Path, follow: bool) -> int:
    """To stdout; a reader that goes away ends it quietly."""
    import os

    from blendrun.errors import EXIT_OK, OutputUnavailableError

    try:
        return _copy(tail, status, follow, sys.stdout.buffer)
    except OSError as error:
        # What is left in the buffer would fail again, loudly, as Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return EXIT_OK
        raise OutputUnavailableError(f"cannot write to stdout: {error.strerror}") from error


def _write(tail: JournalTail, status: Path, follow: bool, target: Target) -> int:
    """To a file: whole at once, or, as long as a run is followed, line by line."""
    from blendrun.errors import unwritable

    if not follow:
        with target.opened() as file:
            return _copy(tail, status, follow, file)
    target.check()
    try:
        with target.growing() as file:
            return _copy(tail, status, follow, file)
    except OSError as error:
        raise unwritable(target.path, error, "run it again with --overwrite") from error


def _copy(tail: JournalTail, status: Path, follow: bool, file: BinaryIO) -> int:
    """All lines that are there, and, with `follow`, those that come until the run ends. Returns the exit code."""
    import time

    from blendrun.errors import EXIT_OK, DrainedError
    from blendrun.report.terminal.status import alive
    from blendrun.store.status import read

    told = False
    while True:
        # Looked at first: what came before the end is read after it.
        found = read(status)
        for line in tail.new():
            file.write(line + b"\n")
        file.flush()
        if not follow:
            return EXIT_OK
        code = None if found is None else found.blendrun.exit_code
        if found is not None and code is not None:
            return DrainedError.exit_code if found.status == "cancelled" else EXIT_OK
        if not told and found is not None and alive(found) is False:
            told = True
            sys.stderr.write("blendrun: the run was killed; waiting for the same command to go on with it\n")
        time.sleep(_LOOK_SECONDS)
