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
from numpy.typing import NDArray

from blendrun import __version__
from blendrun.blend.base import OrderName
from blendrun.engine.base import Engine, EngineInfo, Result
from blendrun.engine.scheduler.estimates import Estimates
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
from blendrun.lengths.history import HistoryUnavailableError
from blendrun.planner.feed import RunPlan
from blendrun.runner import manifest as manifests
from blendrun.runner import summary as summaries
from blendrun.runner.answers import answer_line, check_writable, write_answers
from blendrun.runner.events import Note, PhaseStarted, Progress, Watch
from blendrun.runner.feeding import Feeding
from blendrun.runner.journal import Journal, Record
from blendrun.runner.ledger import Ledger
from blendrun.runner.order import plan_rows
from blendrun.runner.records import Records
from blendrun.runner.state import StateFolder, path_text
from blendrun.runner.steps import StepTail
from blendrun.runner.stop import STOP_SIGNALS, handlers_kept, stop_error
from blendrun.runner.summary import PlanSummary, Stopwatch, Summary, Tokens
from blendrun.simulate.base import Overlap


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What the command line decides.

    inputs: files in order, "-" for stdin. model, model_identity: as given, and its hash. drain_timeout: seconds that
    requests in flight may take to finish after a signal. versions: of the engine's packages, for the manifest.
    planner: makes the plan; None feeds as `order` and `overlap` say.
    """

    inputs: tuple[str, ...]
    output: Path
    model: str
    model_identity: str
    engine: str
    answer_settings: dict[str, Any]
    order: OrderName = OrderName.GIVEN
    overlap: Overlap = Overlap.EXCLUSIVE
    planner: Planner | None = None
    limit: int | None = None
    default_url: str | None = None
    resume: bool = True
    accept_changes: bool = False
    retry_errors: bool = False
    overwrite: bool = False
    drain_timeout: float = 20.0
    versions: dict[str, str] = field(default_factory=dict)


# Makes the plan of the rows that are to be fed; told what to report to.
Planner = Callable[
    [
        Job,
        NDArray[np.int64],
        Callable[[str, str], None],
        Callable[[int, int, str], None],
        Callable[[str], None],
    ],
    RunPlan,
]
MakeEngine = Callable[[StateFolder, RunPlan], Engine]


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
    feeding: Feeding | None = field(default=None, init=False)
    plan: RunPlan | None = field(default=None, init=False)
    todo: int = field(default=0, init=False)
    rejected: int = field(default=0, init=False)
    new_tokens: list[int] = field(default_factory=lambda: [0, 0, 0], init=False)

    @property
    def in_flight(self) -> int:
        return len(self.feeding.flights) if self.feeding is not None else 0

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
                self._finish(todo, make_engine, journal)
            except BlendrunError as error:
                stopped = isinstance(error, DrainedError | InterruptedRunError)
                # What ended the run matters more than a summary that cannot be written either.
                with suppress(BlendrunError):
                    self._summary("drained" if stopped else "failed", error.exit_code)
                raise
        failed = bool(self.rejected) or bool(self.ledger.error_codes)
        return self._summary("completed", EXIT_SOME_LINES_FAILED if failed else EXIT_OK)

    def _plan(self, rows: NDArray[np.int64]) -> RunPlan:
        settings = self.settings
        if settings.planner is None or not len(rows):
            return plan_rows(rows, settings.order, settings.overlap)
        with self.stopwatch.phase("plan"):
            plan = settings.planner(
                self.job,
                rows,
                lambda name, detail: self.watch(PhaseStarted(name, detail)),
                lambda done, total, unit: self.watch(Progress(done, total, unit)),
                lambda text: self._note(text, warning=True),
            )
        if plan.why:
            self._note(plan.why)
        return plan

    def _finish(self, todo: NDArray[np.int64], make_engine: MakeEngine, journal: Journal) -> None:
        """Answer the rows `todo`, then write the files."""
        if len(todo):
            self._note_resume(len(todo))
            self.plan, self.todo = self._plan(todo), len(todo)
            with handlers_kept():
                asyncio.run(self._feed(self.plan, make_engine, journal))
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

    async def _feed(self, plan: RunPlan, make_engine: MakeEngine, journal: Journal) -> None:
        """Bring the engine up, keep its window full until all is done, end it whatever happens."""
        estimates = self._estimates(plan)
        engine = make_engine(self.state, plan)
        work = asyncio.ensure_future(self._serve(engine, plan, estimates, journal))
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
            f"{signal.Signals(number).name}: finishing {self.in_flight} requests in flight, {seconds:g} s at most"
        )
        asyncio.get_running_loop().call_later(seconds, work.cancel)

    def _estimates(self, plan: RunPlan) -> Estimates | None:
        """Before the engine starts, which opens the file. Without one the plan's first expectations stand."""
        self.state.estimates.unlink(missing_ok=True)
        if plan.learning is None:
            return None
        try:
            return Estimates.create(self.state.estimates, self.todo)
        except OSError:
            self.state.estimates.unlink(missing_ok=True)
            return None

    async def _serve(self, engine: Engine, plan: RunPlan, estimates: Estimates | None, journal: Journal) -> None:
        steps = StepTail(self.state.steps)
        with self.stopwatch.phase("load"):
            self.watch(PhaseStarted("load", self.settings.model))
            self.info = info = await engine.start(lambda phase: self.watch(PhaseStarted("load", phase)))
        for note in info.notes:
            self._note(note, warning=True)
        records = Records(self.state.records)
        self.feeding = feeding = Feeding(
            job=self.job,
            plan=plan,
            engine=engine,
            info=info,
            records=records,
            steps=steps,
            estimates=estimates,
            on_result=lambda result, custom_id: self._record(result, custom_id, journal),
            on_tick=self._show_progress,
            on_note=lambda text: self._note(text, warning=True),
            stopping=lambda: self.stop_signal is not None,
        )
        with self.stopwatch.phase("run"):
            self.watch(PhaseStarted("run", f"{self.todo} requests, {info.max_running} at once, order {plan.order}"))
            try:
                await feeding.run()
            finally:
                records.close()
                self._remember(plan)

    def _remember(self, plan: RunPlan) -> None:
        """Leave the lengths of the answers to later runs."""
        if plan.learning is None:
            return
        try:
            plan.learning.remember(self.settings.model_identity)
        except HistoryUnavailableError as error:
            self._note(str(error), warning=True)

    def _record(self, result: Result, custom_id: str, journal: Journal) -> None:
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
        self._show_progress()

    def _show_progress(self) -> None:
        self.watch(
            Progress(
                self.ledger.finished + self.rejected,
                len(self.job),
                "requests",
                self.ledger.error_codes.total() + self.rejected,
                self.in_flight,
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
            order=str(self.plan.order if self.plan else self.settings.order),
            plan=_planned(self.plan),
            new_tokens=Tokens(*self.new_tokens),
            notes=tuple(self.notes),
        )
        summaries.write(self.state.summary, summary)
        return summary


def _planned(plan: RunPlan | None) -> PlanSummary | None:
    if plan is None or not plan.planned:
        return None
    return PlanSummary(plan.order, plan.overlap, plan.why, plan.predicted_seconds, plan.predicted_hit_tokens)
