"""`blendrun answers`: the answers of a run while it works, and of one that was stopped."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

if TYPE_CHECKING:
    from blendrun.store.folder import StateFolder
    from blendrun.store.guard import Target
    from blendrun.store.journal_tail import JournalTail

_LOOK_SECONDS = 0.5


def answers(
    run: Annotated[Path, typer.Argument(help="Output file of a run, or its .blendrun folder.", metavar="RUN")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write them here, not to stdout.", metavar="FILE")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing until the run ends.")] = False,
    errors: Annotated[bool, typer.Option("--errors", help="Also the lines of requests that an engine failed.")] = False,
    cut_short: Annotated[
        bool, typer.Option("--cut-short", help="Only answers that ended at their token limit.")
    ] = False,
    as_requests: Annotated[
        bool,
        typer.Option("--as-requests", help="With --cut-short, of a run that has ended: their requests, to run again."),
    ] = False,
    max_tokens: Annotated[
        int | None,
        typer.Option("--max-tokens", min=1, metavar="N", help="With --as-requests: the tokens each may have now."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there already.")] = False,
) -> None:
    """Print the answers that a run has so far.

    They come in the order in which they were finished; each is a line of the output.
    --cut-short --as-requests writes the requests of what was cut short, in input order, as a job of their own.
    With --follow it waits for a run that was killed until its command is run again. Exit codes: 0 the run is done, or
    this was all there is so far; 75 with --follow: the run was stopped, and its command resumes it.
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
    if as_requests or max_tokens is not None:
        _check_requests(cut_short, as_requests, follow or errors)
        _write_requests(state, max_tokens, output, overwrite)
        return
    tail = JournalTail(state.journal, errors, cut_short)
    if output is None or str(output) == "-":
        code = _pass_on(tail, state.status, follow)
    else:
        check_lines(output, "-o", f", and when the run is done: blendrun convert {state.output} -o {output}")
        own = (state.path, state.output, state.errors, *read_inputs(state.manifest))
        target = Target(output, "--output", own=own, overwrite=overwrite)
        code = _write(tail, state.status, follow, target)
    if code != EXIT_OK:
        raise typer.Exit(code)


def _check_requests(cut_short: bool, as_requests: bool, otherwise: bool) -> None:
    """Raises UsageError where options do not go together."""
    from blendrun.errors import UsageError

    if not as_requests:
        raise UsageError("--max-tokens is of the requests that --cut-short --as-requests writes")
    if not cut_short or otherwise:
        raise UsageError("--as-requests goes with --cut-short, without --follow and --errors")


def _write_requests(state: StateFolder, max_tokens: int | None, output: Path | None, overwrite: bool) -> None:
    """Of the answers that were cut short. Raises InputMissingError, OutputUnavailableError."""
    from blendrun.errors import InputMissingError
    from blendrun.store.cut_short import requests_again
    from blendrun.store.folder import path_text
    from blendrun.store.guard import Target
    from blendrun.text import plural

    if not state.summary.exists():
        raise InputMissingError(f"the run of {state.output} has not ended yet; what was cut short is listed at its end")
    if not state.cut_short.exists():
        sys.stderr.write("blendrun: no answer was cut short\n")
        return
    lines = requests_again(state.cut_short, max_tokens)
    if output is None or str(output) == "-":
        for line in lines:
            sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()
        return
    target = Target(output, "--output", own=(state.path, state.output, state.errors), overwrite=overwrite)
    with target.opened() as file:
        count = 0
        for line in lines:
            count += file.write(line + b"\n") > 0
    sys.stderr.write(f"blendrun: {plural(count, 'request')} of answers that were cut short: {path_text(output)}\n")


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
