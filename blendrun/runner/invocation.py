"""One invocation of a run on an indexed job: resume, plan, have it answered, journal, write."""

from __future__ import annotations

import asyncio
import shlex
from contextlib import suppress
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from blendrun.engine.base import Result
from blendrun.errors import (
    EXIT_OK,
    EXIT_SOME_LINES_FAILED,
    EXIT_TOO_MANY_ERRORS,
    BlendrunError,
    DrainedError,
    EngineUnavailableError,
    InterruptedRunError,
    exit_code_of,
    unusable,
)
from blendrun.events import Event, Listener, Note, PhaseStarted
from blendrun.files import write_atomically
from blendrun.jobs.job import Job
from blendrun.jobs.lines_read import LinesRead
from blendrun.jobs.source import files_of
from blendrun.jobs.spool import remove_others
from blendrun.learned.outlook import Outlook
from blendrun.learned.sample import StepSample
from blendrun.learned.starts import Starts
from blendrun.lengths.history import HistoryUnavailableError
from blendrun.names import EngineName, Purpose
from blendrun.planner.run_plan import RunPlan
from blendrun.runner.copies import with_copies
from blendrun.runner.earlier import Earlier
from blendrun.runner.ends import Ends
from blendrun.runner.flight import Asked
from blendrun.runner.job_warnings import note_of_drawn, warnings_of
from blendrun.runner.manifest import manifest_of
from blendrun.runner.partial import PartialAnswers
from blendrun.runner.plans import Plans, cache_note, planned_of
from blendrun.runner.replica import MakeEngine
from blendrun.runner.settings import RunSettings
from blendrun.runner.step_lessons import StepLessons
from blendrun.runner.stop import handlers_kept, stops_as_errors
from blendrun.runner.supervise import Supervisor
from blendrun.store import manifest as manifests
from blendrun.store import summary as summaries
from blendrun.store.answers import write_answers
from blendrun.store.cut_short import list_cut_short
from blendrun.store.folder import StateFolder, path_text, remove
from blendrun.store.found import NOTHING, Found
from blendrun.store.journal import Journal
from blendrun.store.ledger import ANSWERED
from blendrun.store.own_files import OwnFiles, WrittenFile
from blendrun.store.shards import Rows, write_rows
from blendrun.store.status import StatusFile
from blendrun.store.summary import Restart, Stopwatch, Summary
from blendrun.text import plural

RESUMES = "the same command resumes"


@dataclass(slots=True)
class Invocation:
    """Works under the state folder's lock, and is the replicas' `Owner`.

    lines: of the whole input. rows: what `job` is of a larger one. purpose: of the engines, by the whole input.
    """

    settings: RunSettings
    state: StateFolder
    job: Job
    stopwatch: Stopwatch
    listener: Listener
    status: StatusFile
    lines: LinesRead
    rows: Rows | None = None
    purpose: Purpose = Purpose.GENERATE
    manifest: manifests.Manifest = field(init=False)
    tables: tuple[str, ...] = field(default=(), init=False)
    files: OwnFiles = field(init=False)
    ends: Ends = field(init=False)
    partial: PartialAnswers = field(init=False)
    notes: list[str] = field(default_factory=list, init=False)
    restarts: list[Restart] = field(default_factory=list, init=False)
    supervisor: Supervisor | None = field(default=None, init=False)
    plan: RunPlan | None = field(default=None, init=False)
    resumed: bool = field(default=False, init=False)
    unkept: Found = field(default=NOTHING, init=False)
    cut_short: Found = field(default=NOTHING, init=False)
    outlook: Outlook = field(default_factory=Outlook, init=False)
    lessons: StepLessons = field(init=False)

    def execute(self, make_engine: MakeEngine) -> Summary:
        self.lessons = StepLessons(self.settings.speed, lambda text: self._note(text, warning=True))
        self.manifest = manifest_of(self.settings, self.job, self.rows, self.purpose)
        self.partial = PartialAnswers(self.settings.partial, self.state, self.hear)
        earlier = Earlier.read(self.settings, self.state)
        self.files = OwnFiles(self.state, earlier.written, self._keep_records, self.settings.overwrite)
        if not self.settings.resume:
            # Only now: a wrong input must not cost the answers of the run before.
            self.state.clear(keep=files_of(self.job.sources))
            earlier = earlier.forgotten()
        with Journal(self.state.journal) as journal:
            earlier.check(self.manifest, self.lines, journal)
            self.ends = Ends(
                *(self.settings, self.job, self.manifest.salt, self.state, journal, self.files, self.partial),
                listener=self.listener,
                hear=self.hear,
                stopwatch=self.stopwatch,
            )
            todo = self.ends.ledger.unfinished()
            self.resumed = len(todo) < len(self.job.accepted)
            done = earlier.finished(self.manifest, self.rows, self.files) if not len(todo) else None
            if done is not None:
                self._note("finished before; nothing to do")
                self.partial.begin()
                self.partial.end()
                return msgspec.structs.replace(done, exit_code=self._exit_code(done.counts.failed))
            if not len(todo) and earlier.only_tables_differ(self.manifest):
                self._note("tables changed in what no prompt reads: the output is written again")
            self.tables = self.manifest.tables
            # What is there was written from these; of the new ones it is once it is written.
            self.manifest = msgspec.structs.replace(self.manifest, tables=earlier.tables)
            if len(todo):
                self.files.check(trusted=earlier.completed)
            write_atomically(self.state.lines, self.lines.data)
            self._keep_records(self.files.records)
            if self.rows is not None:
                write_rows(self.state, self.rows)
            self.status.open()
            # A summary speaks of a run that ended; this one has begun.
            remove(self.state.summary)
            remove_others(self.state.spool, files_of(self.job.sources))
            try:
                with stops_as_errors():
                    self.partial.begin()
                    self._finish(todo, make_engine)
                    self._settle()
            except BaseException as error:
                reason = unusable(self.state.path, error) if isinstance(error, OSError) else error
                stopped = isinstance(reason, DrainedError | InterruptedRunError)
                # What ended the run matters more than a summary that cannot be written either.
                with suppress(BlendrunError, OSError):
                    self._settle()
                with suppress(BlendrunError, OSError):
                    self.ends.failed.show_counts()
                    self._summary("drained" if stopped else "failed", exit_code_of(reason))
                if reason is not error:
                    raise reason from error
                raise
            finally:
                self.partial.end()
        if self.ends.failed.too_many():
            # What was in flight was all there was: the files are complete, the verdict is the same.
            self._note(str(self.ends.failed.error()), warning=True)
        return self._summary("completed", self._exit_code(self.ends.failed.count))

    def _exit_code(self, failed: int) -> int:
        if self.ends.failed.too_many(failed):
            return EXIT_TOO_MANY_ERRORS
        cut = self.settings.fail_on_length and self.ends.ledger.cut_short
        return EXIT_SOME_LINES_FAILED if failed or cut else EXIT_OK

    def _answer(self, todo: NDArray[np.int64], make_engine: MakeEngine) -> None:
        """Have engines answer the rows `todo`."""
        settings = self.settings
        plans = Plans(settings, self.job, self.state, self.purpose, self.stopwatch, self.hear)
        divided = plans.divided(todo)
        self.plan = divided.whole
        self.supervisor = Supervisor(
            job=self.job,
            state=self.state,
            patience=settings.patience,
            plans=divided.parts,
            reserve=divided.reserve,
            unfinished=self.ends.to_ask,
            make_plan=plans.of,
            make_engine=make_engine,
            owner=self,
            listener=self.hear,
            stopwatch=self.stopwatch,
            price=self.lessons.price,
            starts=Starts.of(settings.engine, settings.model_identity, str(settings.replicas)),
        )
        self.ends.supervisor = self.supervisor
        try:
            with handlers_kept():
                asyncio.run(self.supervisor.run())
        finally:
            self.ends.journal.sync()
            self.lessons.learn()
            if self.ends.cache is not None:
                self.ends.cache.close()

    def _finish(self, todo: NDArray[np.int64], make_engine: MakeEngine) -> None:
        """Answer the rows `todo`, then write the files."""
        self.ends.failed.collect()
        self.ends.copies.settle()
        if self.settings.strict and (len(todo) or not self.ends.ledger.finished):
            self._refuse_bad_lines()
        if len(todo):
            self.ends.failed.check()
            if done := len(self.job.accepted) - len(todo):
                self._note(f"resuming: {done:,} of {plural(len(self.job), 'request')} are finished")
            for warning in warnings_of(self.job, self.settings):
                self._note(warning, warning=True)
            if (note := note_of_drawn(self.job, self.settings)) is not None:
                self._note(note)
            self.ends.take_kept()
            if len(asked := self.ends.to_ask()):
                self._answer(asked, make_engine)
            self.ends.copies.settle()
        if left := len(self.ends.ledger.unfinished()):
            stopped = self.supervisor.stopped if self.supervisor else None
            self.ends.failed.check()
            if stopped is not None:
                there = plural(left, "request is", "requests are")
                raise type(stopped)(f"{stopped}; {there} left; {RESUMES}{self._so_far()}")
            if self.supervisor and self.supervisor.held:
                raise DrainedError(
                    f"{plural(left, 'request is', 'requests are')} left that would end behind the deadline; {RESUMES}"
                )
            raise EngineUnavailableError(f"the engine ended with {plural(left, 'request')} unanswered; {RESUMES}")
        with self.stopwatch.phase("write"):
            self.listener(PhaseStarted("write", str(self.state.output)))
            self.manifest = msgspec.structs.replace(self.manifest, tables=self.tables)
            ends, schema = self.ends, self.settings.columns.schema
            write_answers(self.job, ends.ledger, ends.journal, self.state, self.files, schema)
            if self.rows is not None:
                write_rows(self.state, replace(self.rows, failed=ends.ledger.state != ANSWERED))

    def _so_far(self) -> str:
        """Where what is answered can be seen."""
        answered = int((self.ends.ledger.state == ANSWERED).sum())
        output = shlex.quote(path_text(self.state.output))
        return f"; the {plural(answered, 'answer')} so far: blendrun answers {output}" if answered else ""

    def _refuse_bad_lines(self) -> None:
        """Raises InputInvalidError where a line has an error that can be found without an engine."""
        refused = None
        if self.settings.check is not None:
            with self.stopwatch.phase("check"):
                refused = with_copies(self.settings.check(self.job, self.hear), self.job)
        self.ends.failed.refuse(refused)

    def _keep_records(self, records: tuple[WrittenFile, ...]) -> None:
        self.manifest = msgspec.structs.replace(self.manifest, written=records)
        manifests.write(self.state.manifest, self.manifest)

    def hear(self, event: Event) -> None:
        """Pass an event on; what notes say is for the summary, too."""
        if isinstance(event, Note):
            self.notes.append(event.text)
        self.outlook.take(event)
        self.listener(event)

    def _note(self, text: str, *, warning: bool = False) -> None:
        self.hear(Note(text, warning))

    def remember(self, plan: RunPlan) -> None:
        """Leave the lengths of the answers to later runs."""
        if plan.learning is None:
            return
        try:
            plan.learning.remember(self.settings.model_identity)
        except HistoryUnavailableError as error:
            self._note(str(error), warning=True)

    def took_steps(self, sample: StepSample) -> None:
        """Keep them until the end of the run."""
        self.lessons.take(sample)

    def died(self, restart: Restart) -> None:
        """Keep it for the summary."""
        self.restarts.append(restart)

    def receive(self, result: Result, asked: Asked) -> None:
        """Journal and count an engine's result."""
        self.ends.receive(result, asked)

    def show_progress(self) -> None:
        """Tell how far the job is."""
        self.ends.show_progress()

    def _settle(self) -> None:
        ends, salt = self.ends, self.manifest.salt
        self.unkept = ends.kept.listed.settle(self.job, ends.ledger, salt, ends.copies.copied)
        self.cut_short = list_cut_short(self.state.cut_short, self.job, ends.ledger)

    def _summary(self, status: str, exit_code: int) -> Summary:
        # Not every server says what it had cached.
        told = status == "completed" and self.settings.engine == EngineName.SGLANG
        if told and (note := cache_note(self.plan, self.ends.tokens)) is not None:
            self._note(note)
        summary = summaries.summarise(
            self.job,
            self.ends.ledger,
            self.manifest,
            self.supervisor.info if self.supervisor else None,
            self.stopwatch,
            status=status,
            exit_code=exit_code,
            output=self.state.output,
            errors=self.state.errors,
            order=str(self.plan.order if self.plan else self.settings.order),
            plan=planned_of(self.plan, self.outlook.corrected),
            new_tokens=self.ends.tokens,
            notes=tuple(self.notes),
            failures=self.ends.failed.failures,
            restarts=tuple(self.restarts),
            unkept=self.unkept,
            unkept_list=self.state.unkept,
            cut_short=self.cut_short,
            cut_short_list=self.state.cut_short,
            devices=self.settings.devices,
            gpu_hour=self.settings.gpu_hour,
            resumed=self.resumed,
        )
        summaries.write(self.state.summary, summary)
        self.status.end(summary)
        return summary
