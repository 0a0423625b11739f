"""One run: index, resume, feed the engine, journal, write. The process that owns the user's files."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from blendrun import __version__
from blendrun.blend.base import OrderName
from blendrun.engine.base import Engine, EngineInfo, Result, WorkItem
from blendrun.errors import (
    EXIT_OK,
    EXIT_SOME_LINES_FAILED,
    BlendrunError,
    DrainedError,
    EngineUnavailableError,
    InputMissingError,
    InterruptedRunError,
    OutputUnavailableError,
)
from blendrun.jobs import Job, index_jobs, open_sources
from blendrun.runner import manifest as manifests
from blendrun.runner import summary as summaries
from blendrun.runner.answers import answer_line, check_writable, write_answers
from blendrun.runner.events import Note, PhaseStarted, Progress, Watch
from blendrun.runner.journal import Journal, Record
from blendrun.runner.ledger import Ledger
from blendrun.runner.order import PlanRows, arrange
from blendrun.runner.state import StateFolder, path_text
from blendrun.runner.stop import STOP_SIGNALS, handlers_kept, stop_error
from blendrun.runner.summary import Stopwatch, Summary, Tokens

# Requests waiting in the engine's queue beyond those it decodes: enough that a burst of completions never starves it.
_QUEUE_DEPTH = 128


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What the command line decides.

    inputs: files in order, "-" for stdin. model, model_identity: as given, and its hash. drain_timeout: seconds that
    requests in flight may take to finish after a signal. versions: of the engine's packages, for the manifest.
    plan_rows: finds the orders that need prompts; None for those that do not.
    """

    inputs: tuple[str, ...]
    output: Path
    model: str
    model_identity: str
    engine: str
    answer_settings: dict[str, Any]
    order: OrderName = OrderName.GIVEN
    plan_rows: PlanRows | None = None
    limit: int | None = None
    default_url: str | None = None
    resume: bool = True
    accept_changes: bool = False
    retry_errors: bool = False
    overwrite: bool = False
    drain_timeout: float = 20.0
    versions: dict[str, str] = field(default_factory=dict)


MakeEngine = Callable[[StateFolder], Engine]


def execute(settings: RunSettings, make_engine: MakeEngine, watch: Watch) -> Summary:
    """Run the job to its end, or resume it, or find it finished. Raises BlendrunError as exit codes have it.

    make_engine is called only when there is work for an engine.
    """
    stopwatch = Stopwatch()
    state = StateFolder(settings.output)
    _refuse_missing_input(settings)
    try:
        _refuse_foreign_output(settings, state)
    except OSError as error:
        raise OutputUnavailableError(f"cannot write {state.output}: {error.strerror}; give another -o") from error
    with state.locked():
        check_writable(state)
        with stopwatch.phase("index"):
            watch(PhaseStarted("index", ", ".join(settings.inputs)))
            sources = open_sources(settings.inputs, state.spool)
            job = index_jobs(
                sources,
                limit=settings.limit,
                default_url=settings.default_url,
                progress=lambda done, total: watch(Progress(done, total, "bytes")),
            )
        with job:
            return _Run(settings, state, job, stopwatch, watch).execute(make_engine)


def _refuse_missing_input(settings: RunSettings) -> None:
    """Before anything is made: a mistyped name must leave no state folder behind."""
    for name in settings.inputs:
        if name != "-" and not os.path.lexists(name):
            raise InputMissingError(f"cannot read {name}: no such file; check the path")


def _refuse_foreign_output(settings: RunSettings, state: StateFolder) -> None:
    """Never write over an input, nor over a file that no run of blendrun made."""
    for path in (state.output, state.errors):
        if not path.exists():
            continue
        if not path.is_file():
            raise OutputUnavailableError(f"{path} is no regular file; give another -o")
        if any(name != "-" and Path(name).exists() and path.samefile(name) for name in settings.inputs):
            what = "the output" if path == state.output else "the errors file"
            raise OutputUnavailableError(f"{what} {path} is the input; give another -o")
        if not state.begun and not settings.overwrite:
            raise OutputUnavailableError(
                f"{path} exists and no run state lies beside it; give another -o, or --overwrite to replace it"
            )


@dataclass(slots=True)
class _Run:
    """One invocation on an indexed job, under the state folder's lock."""

    settings: RunSettings
    state: StateFolder
    job: Job
    stopwatch: Stopwatch
    watch: Watch
    manifest: manifests.Manifest = field(init=False)
    salt: bytes = field(init=False)
    ledger: Ledger = field(init=False)
    info: EngineInfo | None = field(default=None, init=False)
    notes: list[str] = field(default_factory=list, init=False)
    stop_signal: int | None = field(default=None, init=False)
    in_flight: dict[int, str] = field(default_factory=dict, init=False)
    rejected: int = field(default=0, init=False)
    new_tokens: list[int] = field(default_factory=lambda: [0, 0, 0], init=False)

    def execute(self, make_engine: MakeEngine) -> Summary:
        self.manifest = self._manifest()
        self.salt = self.manifest.salt
        self.rejected = int(self.job.rejected.sum())
        if not self.settings.resume:
            # Only now: a wrong input must not cost the answers of the run before.
            self.state.clear(keep=[source.path for source in self.job.sources])
        old = manifests.read(self.state.manifest)
        with Journal(self.state.journal) as journal:
            # Without a finished request there is nothing to mix: a failed first start binds nobody to its settings.
            if old is not None and not journal.empty:
                manifests.check(old, self.manifest, accept_changes=self.settings.accept_changes)
            if self.settings.retry_errors:
                journal.drop_errors()
            self.ledger = Ledger(self.job, self.salt)
            self.ledger.load(journal.entries())
            if journal.damaged:
                self._note(
                    f"{journal.damaged} damaged journal records passed over; their requests run again", warning=True
                )
            todo = self.ledger.unfinished()
            if not len(todo) and old == self.manifest and (done := self._finished_before()) is not None:
                return done
            manifests.write(self.state.manifest, self.manifest)
            # A summary speaks of a run that ended; this one has begun.
            self.state.summary.unlink(missing_ok=True)
            try:
                todo = self._arrange(todo)
                self._finish(todo, make_engine, journal)
            except BlendrunError as error:
                stopped = isinstance(error, DrainedError | InterruptedRunError)
                # What ended the run matters more than a summary that cannot be written either.
                with suppress(BlendrunError):
                    self._summary("drained" if stopped else "failed", error.exit_code)
                raise
        failed = bool(self.rejected) or bool(self.ledger.error_codes)
        return self._summary("completed", EXIT_SOME_LINES_FAILED if failed else EXIT_OK)

    def _arrange(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        settings = self.settings
        if settings.plan_rows is None:
            return arrange(self.job, rows, settings.order, None, self.watch)
        with self.stopwatch.phase("plan"):
            return arrange(self.job, rows, settings.order, settings.plan_rows, self.watch)

    def _finish(self, todo: NDArray[np.int64], make_engine: MakeEngine, journal: Journal) -> None:
        """Answer the rows `todo`, then write the files."""
        if len(todo):
            self._note_resume(len(todo))
            with handlers_kept():
                asyncio.run(self._feed(todo, make_engine, journal))
        if left := len(self.ledger.unfinished()):
            if self.stop_signal is not None:
                raise stop_error(self.stop_signal, f"{left} requests are left; the same command resumes")
            raise EngineUnavailableError(f"the engine ended with {left} requests unanswered; the same command resumes")
        with self.stopwatch.phase("write"):
            self.watch(PhaseStarted("write", str(self.state.output)))
            write_answers(self.job, self.ledger, journal, self.state)

    def _manifest(self) -> manifests.Manifest:
        settings = self.settings
        return manifests.Manifest(
            schema_version=manifests.SCHEMA_VERSION,
            versions={"blendrun": __version__, **settings.versions},
            inputs=tuple("<stdin>" if name == "-" else path_text(Path(name).resolve()) for name in settings.inputs),
            input_fingerprint=self.job.fingerprint,
            limit=settings.limit,
            model=path_text(settings.model),
            model_identity=settings.model_identity,
            engine=settings.engine,
            answer_settings=settings.answer_settings,
        )

    def _finished_before(self) -> Summary | None:
        """The summary of the run that finished this very job, if its files are still there."""
        summary = summaries.read(self.state.summary)
        if summary is None or summary.status != "completed" or not self.state.output.exists():
            return None
        if summary.errors is not None and not self.state.errors.exists():
            return None
        self._note("finished before; nothing to do")
        return summary

    def _note(self, text: str, *, warning: bool = False) -> None:
        self.notes.append(text)
        self.watch(Note(text, warning))

    def _note_resume(self, left: int) -> None:
        done = len(self.job.accepted) - left
        if done:
            self._note(f"resuming: {done} of {len(self.job)} requests are finished")

    async def _feed(self, rows: NDArray[np.int64], make_engine: MakeEngine, journal: Journal) -> None:
        """Bring the engine up, keep its window full until `rows` are done, end it whatever happens."""
        engine = make_engine(self.state)
        work = asyncio.ensure_future(self._serve(engine, rows, journal))
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number, work)
        try:
            await work
        except (asyncio.CancelledError, EngineUnavailableError):
            # A scheduler signals every process of a job: an engine that dies now was told to stop as we were.
            if self.stop_signal is None:
                raise
        finally:
            await engine.stop()
            journal.sync()

    def _on_signal(self, number: int, work: asyncio.Future[None]) -> None:
        """First signal: stop admitting and drain. A second one: stop at once, with the journal intact."""
        if self.stop_signal is not None or self.info is None:
            self.stop_signal = self.stop_signal or number
            work.cancel()
            return
        self.stop_signal = number
        seconds = self.settings.drain_timeout
        self._note(
            f"{signal.Signals(number).name}: finishing {len(self.in_flight)} requests in flight, {seconds:g} s at most"
        )
        asyncio.get_running_loop().call_later(seconds, work.cancel)

    async def _serve(self, engine: Engine, rows: NDArray[np.int64], journal: Journal) -> None:
        with self.stopwatch.phase("load"):
            self.watch(PhaseStarted("load", self.settings.model))
            self.info = info = await engine.start(lambda phase: self.watch(PhaseStarted("load", phase)))
        for note in info.notes:
            self._note(note, warning=True)
        with self.stopwatch.phase("run"):
            self.watch(PhaseStarted("run", f"{len(rows)} requests, {info.max_running} at once"))
            window = asyncio.Semaphore(info.max_running + _QUEUE_DEPTH)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._submit(engine, rows, window))
                    group.create_task(self._collect(engine, window, journal))
            except BaseExceptionGroup as errors:
                # One side failing ends the other; the first failure is the reason.
                raise errors.exceptions[0] from None

    async def _submit(self, engine: Engine, rows: NDArray[np.int64], window: asyncio.Semaphore) -> None:
        for row in rows:
            await window.acquire()
            if self.stop_signal is not None:
                break
            request = self.job.request(int(row))
            item = WorkItem(int(row), request.endpoint.url, orjson.dumps(request.body), _stated_length(request.extra))
            self.in_flight[int(row)] = request.custom_id
            await engine.submit(item)
        await engine.close_input()

    async def _collect(self, engine: Engine, window: asyncio.Semaphore, journal: Journal) -> None:
        async for result in engine.results():
            window.release()
            self._record(result, journal)

    def _record(self, result: Result, journal: Journal) -> None:
        custom_id = self.in_flight.pop(result.row)
        key = self.job.key(result.row, self.salt)
        record = Record(
            key,
            result.error_code is None,
            result.usage,
            result.finish_reasons,
            result.error_code,
            answer_line(key, custom_id, result),
        )
        self.ledger.mark(result.row, journal.append(record))
        usage = result.usage
        for place, tokens in enumerate((usage.prompt, usage.cached, usage.output)):
            self.new_tokens[place] += tokens
        self.watch(
            Progress(
                self.ledger.finished + self.rejected,
                len(self.job),
                "requests",
                self.ledger.error_codes.total() + self.rejected,
                len(self.in_flight),
                *self.new_tokens,
            )
        )

    def _summary(self, status: str, exit_code: int) -> Summary:
        summary = summaries.summarise(
            self.job,
            self.ledger,
            self.manifest,
            self.info,
            self.stopwatch,
            status=status,
            exit_code=exit_code,
            output=self.state.output,
            errors=self.state.errors,
            order=str(self.settings.order),
            new_tokens=Tokens(*self.new_tokens),
            notes=tuple(self.notes),
        )
        summaries.write(self.state.summary, summary)
        return summary


def _stated_length(extra: dict[str, Any]) -> int | None:
    """Output tokens that the line's metadata states, for the replay engine."""
    metadata = extra.get("metadata")
    length = metadata.get("reference_output_tokens") if isinstance(metadata, dict) else None
    return length if isinstance(length, int) and length > 0 else None
