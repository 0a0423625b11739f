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
from blendrun.engine.failure import within
from blendrun.engine.own_words import in_own_words
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
from blendrun.events import Event, Listener, Note, PhaseStarted, Progress
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
from blendrun.runner.copies import Copies, with_copies
from blendrun.runner.failed_lines import FailedLines
from blendrun.runner.finished import finished_before, only_tables_differ, same_input
from blendrun.runner.flight import Asked
from blendrun.runner.job_warnings import note_of_drawn, warnings_of
from blendrun.runner.kept import AnswerCheck
from blendrun.runner.kept_answers import KeptAnswers
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
from blendrun.store.answers import answer_line, is_line, write_answers
from blendrun.store.cut_short import list_cut_short
from blendrun.store.folder import StateFolder, path_text, remove
from blendrun.store.found import NOTHING, Found
from blendrun.store.journal import CACHE, COPY, LONGEST_RECORD, Journal, Record
from blendrun.store.ledger import ANSWERED, Ledger
from blendrun.store.own_files import OwnFiles, WrittenFile
from blendrun.store.shards import Rows, write_rows
from blendrun.store.status import StatusFile
from blendrun.store.summary import Restart, Stopwatch, Summary, Tokens, cost_of
from blendrun.store.unkept import UnkeptAnswers
from blendrun.text import plural

RESUMES = "the same command resumes"
# Bytes of an answer that a record has room for, beside its id and what else is said of it.
_LONGEST_ANSWER = LONGEST_RECORD - (16 << 20)


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
    salt: bytes = field(init=False)
    ledger: Ledger = field(init=False)
    failed: FailedLines = field(init=False)
    files: OwnFiles = field(init=False)
    journal: Journal = field(init=False)
    kept: AnswerCheck = field(init=False)
    copies: Copies = field(init=False)
    cache: KeptAnswers | None = field(default=None, init=False)
    partial: PartialAnswers = field(init=False)
    notes: list[str] = field(default_factory=list, init=False)
    restarts: list[Restart] = field(default_factory=list, init=False)
    supervisor: Supervisor | None = field(default=None, init=False)
    plan: RunPlan | None = field(default=None, init=False)
    rejected: int = field(default=0, init=False)
    resumed: bool = field(default=False, init=False)
    unkept: Found = field(default=NOTHING, init=False)
    cut_short: Found = field(default=NOTHING, init=False)
    new_tokens: list[int] = field(default_factory=lambda: [0, 0, 0], init=False)
    outlook: Outlook = field(default_factory=Outlook, init=False)
    lessons: StepLessons = field(init=False)

    def execute(self, make_engine: MakeEngine) -> Summary:
        self.lessons = StepLessons(self.settings.speed, lambda text: self._note(text, warning=True))
        self.manifest = manifest_of(self.settings, self.job, self.rows, self.purpose)
        self.salt = self.manifest.salt
        self.partial = PartialAnswers(self.settings.partial, self.state, self.hear)
        self.rejected = int(self.job.rejected.sum())
        before = summaries.read(self.state.summary)
        old = manifests.read(
            self.state.manifest, accept_changes=self.settings.accept_changes or not self.settings.resume
        )
        self.files = OwnFiles(self.state, old.written if old else (), self._keep_records, self.settings.overwrite)
        if not self.settings.resume:
            # Only now: a wrong input must not cost the answers of the run before.
            self.state.clear(keep=files_of(self.job.sources))
            old = None
        with Journal(self.state.journal) as journal:
            self.journal = journal
            # Without a finished request there is nothing to mix: a failed first start binds nobody to its settings.
            if old is not None and (not journal.empty or self.state.output.exists()):
                same = same_input(old, self.lines, self.state)
                manifests.check(old, self.manifest, accept_changes=self.settings.accept_changes, same_input=same)
            if self.settings.retry_errors:
                journal.drop_errors()
            self.ledger = Ledger(self.job, self.salt)
            self.ledger.load(journal.entries(is_line))
            self.failed = FailedLines(
                self.job, self.ledger, journal, self.files, self.settings.max_errors, self.listener
            )
            self.kept = AnswerCheck(
                self.job,
                self.salt,
                UnkeptAnswers(self.state.unkept),
                refuse=self.settings.check_answers,
                placeholders=self.settings.engine == EngineName.REPLAY,
                listener=self.hear,
            )
            if journal.emptied:
                self._note("the journal was empty: what it held is lost, and its requests run again", warning=True)
            if journal.damaged:
                self._note(
                    f"{journal.damaged} damaged journal records passed over; their requests run again", warning=True
                )
            self.copies = Copies(self.job, self.ledger, journal, self.salt, self._record_failure)
            todo = self.ledger.unfinished()
            self.resumed = len(todo) < len(self.job.accepted)
            done = finished_before(old, self.manifest, self.rows, before, self.files) if not len(todo) else None
            if done is not None:
                self._note("finished before; nothing to do")
                self.partial.begin()
                self.partial.end()
                devices = done.devices or self.settings.devices
                cost = cost_of(done.seconds.get("wall", 0.0), devices, self.settings.gpu_hour) or done.cost
                return msgspec.structs.replace(done, exit_code=self._exit_code(done.counts.failed), cost=cost)
            if not len(todo) and only_tables_differ(old, self.manifest):
                self._note("tables changed in what no prompt reads: the output is written again")
            self.tables = self.manifest.tables
            # What is there was written from these; of the new ones it is once it is written.
            self.manifest = msgspec.structs.replace(self.manifest, tables=old.tables if old else ())
            if len(todo):
                self.files.check(trusted=before is not None and before.status == "completed")
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
                ends = unusable(self.state.path, error) if isinstance(error, OSError) else error
                stopped = isinstance(ends, DrainedError | InterruptedRunError)
                # What ended the run matters more than a summary that cannot be written either.
                with suppress(BlendrunError, OSError):
                    self._settle()
                with suppress(BlendrunError, OSError):
                    self.failed.show_counts()
                    self._summary("drained" if stopped else "failed", exit_code_of(ends))
                if ends is not error:
                    raise ends from error
                raise
            finally:
                self.partial.end()
        if self.failed.too_many():
            # What was in flight was all there was: the files are complete, the verdict is the same.
            self._note(str(self.failed.error()), warning=True)
        return self._summary("completed", self._exit_code(self.failed.count))

    def _exit_code(self, failed: int) -> int:
        if self.failed.too_many(failed):
            return EXIT_TOO_MANY_ERRORS
        cut = self.settings.fail_on_length and self.ledger.cut_short
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
            unfinished=self._to_ask,
            make_plan=plans.of,
            make_engine=make_engine,
            owner=self,
            listener=self.hear,
            stopwatch=self.stopwatch,
            price=self.lessons.price,
            starts=Starts.of(settings.engine, settings.model_identity, str(settings.replicas)),
        )
        try:
            with handlers_kept():
                asyncio.run(self.supervisor.run())
        finally:
            self.journal.sync()
            self.lessons.learn()
            if self.cache is not None:
                self.cache.close()

    def _finish(self, todo: NDArray[np.int64], make_engine: MakeEngine) -> None:
        """Answer the rows `todo`, then write the files."""
        self.failed.collect()
        self.copies.settle()
        if self.settings.strict and (len(todo) or not self.ledger.finished):
            self._refuse_bad_lines()
        if len(todo):
            self.failed.check()
            if done := len(self.job.accepted) - len(todo):
                self._note(f"resuming: {done:,} of {plural(len(self.job), 'request')} are finished")
            for warning in warnings_of(self.job, self.settings):
                self._note(warning, warning=True)
            if (note := note_of_drawn(self.job, self.settings)) is not None:
                self._note(note)
            self._take_kept()
            if len(asked := self._to_ask()):
                self._answer(asked, make_engine)
            self.copies.settle()
        if left := len(self.ledger.unfinished()):
            stopped = self.supervisor.stopped if self.supervisor else None
            self.failed.check()
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
            write_answers(self.job, self.ledger, self.journal, self.state, self.files, self.settings.columns.schema)
            if self.rows is not None:
                write_rows(self.state, replace(self.rows, failed=self.ledger.state != ANSWERED))

    def _so_far(self) -> str:
        """Where what is answered can be seen."""
        answered = int((self.ledger.state == ANSWERED).sum())
        output = shlex.quote(path_text(self.state.output))
        return f"; the {plural(answered, 'answer')} so far: blendrun answers {output}" if answered else ""

    def _refuse_bad_lines(self) -> None:
        """Raises InputInvalidError where a line has an error that can be found without an engine."""
        refused = None
        if self.settings.check is not None:
            with self.stopwatch.phase("check"):
                refused = with_copies(self.settings.check(self.job, self.hear), self.job)
        self.failed.refuse(refused)

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
        if self.cache is not None:
            self.cache.keep(result)
        usage = result.usage
        for place, tokens in enumerate((usage.prompt, usage.cached, usage.output)):
            self.new_tokens[place] += tokens
        self._end_with(result, asked)

    def _to_ask(self) -> NDArray[np.int64]:
        """Rows that an engine is to answer."""
        return self.copies.to_ask(self.ledger.unfinished())

    def _take_kept(self) -> None:
        """Answers of other runs for rows that have none."""
        if self.settings.cache is None:
            return
        self.cache = KeptAnswers(self.settings.cache, self.job, self.salt, self.hear)
        with self.stopwatch.phase("cache"):
            self.listener(PhaseStarted("cache", str(self.settings.cache.folder)))
            self.cache.take(self._to_ask(), self._end_with)
            self.copies.settle()
        if taken := self.ledger.taken[CACHE]:
            self._note(f"{plural(taken, 'answer is', 'answers are')} taken from {self.settings.cache.folder}")

    def _end_with(self, result: Result, asked: Asked, taken: str | None = None) -> None:
        """Journal and count a result. taken: see `Record`."""
        result = within(result, _LONGEST_ANSWER)
        result = in_own_words(self.kept.judged(result, asked.custom_id, asked.promise, taken), asked.spoken)
        key = self.job.key(result.row, self.salt)
        record = Record(
            key,
            result.error_code is None,
            result.usage,
            result.finish_reasons,
            result.error_code,
            answer_line(
                *(key, asked.custom_id, result),
                results=asked.spoken is not None and asked.spoken.results,
                taken=taken,
            ),
            taken,
            asked.promise is not None,
        )
        self.ledger.mark(result.row, self.journal.append(record))
        if result.error_code is not None:
            self._record_failure(result.row, result.error_code, result.error_message or "")
        self.copies.ended(result.row)
        self.show_progress()

    def _record_failure(self, row: int, code: str, message: str) -> None:
        self.failed.add(row, code, message)
        if self.failed.too_many() and self.supervisor is not None and self.supervisor.stopped is None:
            self.supervisor.stop(self.failed.error(), "too many errors")

    def show_progress(self) -> None:
        """Tell how far the job is."""
        self.copies.step()
        self.partial.grow()
        prompt, cached, output = self.new_tokens
        self.listener(
            Progress(
                self.ledger.finished + self.rejected,
                len(self.job),
                "requests",
                self.ledger.error_codes.total() + self.rejected,
                self.supervisor.in_flight if self.supervisor else 0,
                prompt,
                cached,
                output,
                copies=self.ledger.taken[COPY],
                kept=self.ledger.taken[CACHE],
                cut=self.ledger.cut_short,
            )
        )

    def _settle(self) -> None:
        self.unkept = self.kept.listed.settle(self.job, self.ledger, self.salt, self.copies.copied)
        self.cut_short = list_cut_short(self.state.cut_short, self.job, self.ledger)

    def _summary(self, status: str, exit_code: int) -> Summary:
        # Not every server says what it had cached.
        told = status == "completed" and self.settings.engine == EngineName.SGLANG
        if told and (note := cache_note(self.plan, Tokens(*self.new_tokens))) is not None:
            self._note(note)
        summary = summaries.summarise(
            self.job,
            self.ledger,
            self.manifest,
            self.supervisor.info if self.supervisor else None,
            self.stopwatch,
            status=status,
            exit_code=exit_code,
            output=self.state.output,
            errors=self.state.errors,
            order=str(self.plan.order if self.plan else self.settings.order),
            plan=planned_of(self.plan, self.outlook.corrected),
            new_tokens=Tokens(*self.new_tokens),
            notes=tuple(self.notes),
            failures=self.failed.failures,
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
