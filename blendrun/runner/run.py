"""One run: index, resume, feed the engine, journal, write. The process that owns the user's files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress

from blendrun.errors import (
    BlendrunError,
    DrainedError,
    InputMissingError,
    InterruptedRunError,
    OutputUnavailableError,
    exit_code_of,
    unusable,
)
from blendrun.events import Listener, PhaseStarted
from blendrun.files import written_through
from blendrun.jobs.fetched import forget_other_copies
from blendrun.jobs.index import index_jobs
from blendrun.jobs.lines_read import LinesRead
from blendrun.jobs.source import open_sources
from blendrun.jobs.spool import remove_halves
from blendrun.names import Purpose
from blendrun.paths import how_to_read, scheme
from blendrun.remote.address import is_address, local_paths, shown
from blendrun.runner.invocation import Invocation
from blendrun.runner.replica import MakeEngine
from blendrun.runner.settings import RunSettings
from blendrun.runner.stop import stops_as_errors
from blendrun.store import summary as summaries
from blendrun.store.answers import check_writable
from blendrun.store.folder import StateFolder, path_text
from blendrun.store.guard import refuse_inputs, refuse_other_runs
from blendrun.store.shards import read_rows, take_shard
from blendrun.store.status import StatusFile
from blendrun.store.summary import Stopwatch, Summary
from blendrun.store.tables.own import check_own
from blendrun.store.uploads import deliver, parcels
from blendrun.text import cut, printable


def execute(
    settings: RunSettings, make_engine: MakeEngine, listener: Listener, stopwatch: Stopwatch | None = None
) -> Summary:
    """Run the job to its end, or resume it, or find it finished. Raises BlendrunError as exit codes have it.

    make_engine is called only when there is work for an engine. stopwatch: runs since the command began; None for one
    that begins now.
    """
    stopwatch = stopwatch or Stopwatch()
    state = StateFolder(settings.output)
    refuse_missing_input(settings.inputs)
    try:
        _refuse_foreign_output(settings, state)
    except OSError as error:
        raise OutputUnavailableError(f"cannot write {state.output}: {error.strerror}; give another -o") from error
    with state.locked():
        check_writable(state)
        inputs = tuple(map(shown, settings.inputs))
        status = StatusFile(
            state.status,
            model=path_text(settings.model),
            inputs=inputs,
            output=settings.output,
            begun_at=stopwatch.begun_at,
        )
        try:
            with stops_as_errors():
                return _execute_locked(settings, state, stopwatch, status.beside(listener), status, make_engine)
        except BaseException as error:
            ends = unusable(state.path, error) if isinstance(error, OSError) else error
            if not status.ended:
                status.fail(exit_code_of(ends))
                _leave_summary(settings, state, stopwatch, ends)
            if ends is not error:
                raise ends from error
            raise


def _execute_locked(
    settings: RunSettings,
    state: StateFolder,
    stopwatch: Stopwatch,
    listener: Listener,
    status: StatusFile,
    make_engine: MakeEngine,
) -> Summary:
    with stopwatch.phase("index"):
        remove_halves(state.spool)
        forget_other_copies(settings.inputs, state.spool)
        sources = open_sources(
            settings.inputs, state.spool, settings.longest_window, settings.columns, listener=listener
        )
        check_own(state.output, sources)
        listener(PhaseStarted("index", ", ".join(map(shown, settings.inputs))))
        job = index_jobs(
            sources,
            limit=settings.limit,
            default_url=settings.default_url,
            max_line_bytes=settings.max_line_bytes,
            rules=settings.rules,
            same=settings.same,
            listener=listener,
        )
    with job:
        lines, rows = LinesRead.of(job, settings.limit), None
        # Of all lines: shards of one job need the same engine.
        purpose = Purpose.GENERATE if settings.purpose is None else settings.purpose(job)
        if settings.shard is not None:
            goes_on = state.begun and settings.resume and not settings.accept_changes
            with stopwatch.phase("divide"):
                job, rows = take_shard(job, settings.shard, read_rows(state) if goes_on else None, listener)
        invocation = Invocation(settings, state, job, stopwatch, listener, status, lines, rows, purpose)
        summary = invocation.execute(make_engine)
    _upload(settings, state, summary, status, listener)
    return summary


def _upload(
    settings: RunSettings, state: StateFolder, summary: Summary, status: StatusFile, listener: Listener
) -> None:
    """Send what has not arrived yet. Raises OutputUnavailableError; the summary stays that of a finished run."""
    if settings.upload is None or not (waiting := parcels(state, settings.upload, listener)):
        return
    status.open()
    for each in waiting:
        deliver(state, each, listener)
    status.end(summary)


def _leave_summary(settings: RunSettings, state: StateFolder, stopwatch: Stopwatch, ends: BaseException) -> None:
    """Of a run that ended before it could write its own; one of a run before, which this one could not touch, stays."""
    stopped = isinstance(ends, DrainedError | InterruptedRunError)
    summary = summaries.without_job(
        status="drained" if stopped else "failed",
        exit_code=exit_code_of(ends),
        reason=printable(cut(str(ends) or type(ends).__name__)),
        output=settings.output,
        inputs=tuple(map(shown, settings.inputs)),
        model=path_text(settings.model),
        engine=settings.engine,
        order=str(settings.order),
        seconds=stopwatch.read(),
    )
    # What ended the run matters more than a summary that cannot be written either.
    with suppress(BlendrunError, OSError):
        if not state.summary.exists():
            summaries.write(state.summary, summary)


def refuse_missing_input(inputs: Sequence[str]) -> None:
    """Before anything is made or fetched: a mistyped name must leave no state folder. Raises InputMissingError."""
    for name in inputs:
        if name != "-" and not is_address(name) and not os.path.lexists(name):
            if scheme(name) is not None:
                raise InputMissingError(how_to_read(name))
            raise InputMissingError(f"cannot read {name}: no such file; check the path")


def _refuse_foreign_output(settings: RunSettings, state: StateFolder) -> None:
    """Never write over an input, nor over a file that no run of blendrun made. Raises OSError too."""
    inputs = local_paths(settings.inputs)
    if settings.shard_of is not None:
        refuse_inputs(StateFolder(settings.shard_of), inputs)
    refuse_inputs(state, inputs)
    for path in (state.output, state.errors):
        if path.exists() and not state.begun and not settings.overwrite:
            raise OutputUnavailableError(
                f"{path} exists and no run state lies beside it; give another -o, or --overwrite to replace it"
            )
        refuse_other_runs(f"-o {path_text(path)}", written_through(path), state, overwrite=settings.overwrite)
