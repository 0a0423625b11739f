"""How requests end: an answer, one of an earlier run, or a failure becomes a record of the journal and is counted."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from blendrun.engine.base import Result
from blendrun.engine.failure import within
from blendrun.engine.own_words import in_own_words
from blendrun.events import Listener, Note, PhaseStarted, Progress
from blendrun.jobs.job import Job
from blendrun.names import EngineName
from blendrun.runner.copies import Copies
from blendrun.runner.failed_lines import FailedLines
from blendrun.runner.flight import Asked
from blendrun.runner.kept import AnswerCheck
from blendrun.runner.kept_answers import KeptAnswers
from blendrun.runner.partial import PartialAnswers
from blendrun.runner.settings import RunSettings
from blendrun.runner.supervise import Supervisor
from blendrun.store.answers import answer_line, is_line
from blendrun.store.folder import StateFolder
from blendrun.store.journal import CACHE, COPY, LONGEST_RECORD, Journal, Record
from blendrun.store.ledger import Ledger
from blendrun.store.own_files import OwnFiles
from blendrun.store.summary import Stopwatch, Tokens
from blendrun.store.unkept import UnkeptAnswers
from blendrun.text import plural

# Bytes of an answer that a record has room for, beside its id and what else is said of it.
_LONGEST_ANSWER = LONGEST_RECORD - (16 << 20)


@dataclass(slots=True)
class Ends:
    """Of the rows of a job; what its journal holds is taken up when this is made.

    salt: of the keys under which finished work is kept. listener: told how far the job is. hear: told what happens.
    supervisor: of the engines, once there are some; it is stopped where too many lines have failed.
    new_tokens: prompt, cached and output tokens of what engines answered since.
    """

    settings: RunSettings
    job: Job
    salt: bytes
    state: StateFolder
    journal: Journal
    files: OwnFiles
    partial: PartialAnswers
    listener: Listener
    hear: Listener
    stopwatch: Stopwatch
    supervisor: Supervisor | None = None
    ledger: Ledger = field(init=False)
    failed: FailedLines = field(init=False)
    kept: AnswerCheck = field(init=False)
    copies: Copies = field(init=False)
    cache: KeptAnswers | None = field(default=None, init=False)
    rejected: int = field(init=False)
    new_tokens: list[int] = field(default_factory=lambda: [0, 0, 0], init=False)

    def __post_init__(self) -> None:
        settings, job, journal = self.settings, self.job, self.journal
        self.rejected = int(job.rejected.sum())
        if settings.retry_errors:
            journal.drop_errors()
        self.ledger = Ledger(job, self.salt)
        self.ledger.load(journal.entries(is_line))
        self.failed = FailedLines(job, self.ledger, journal, self.files, settings.max_errors, self.listener)
        self.kept = AnswerCheck(
            job,
            self.salt,
            UnkeptAnswers(self.state.unkept),
            refuse=settings.check_answers,
            placeholders=settings.engine == EngineName.REPLAY,
            listener=self.hear,
        )
        if journal.emptied:
            self.hear(Note("the journal was empty: what it held is lost, and its requests run again", warning=True))
        if journal.damaged:
            passed = f"{journal.damaged} damaged journal records passed over; their requests run again"
            self.hear(Note(passed, warning=True))
        self.copies = Copies(job, self.ledger, journal, self.salt, self._record_failure)

    @property
    def tokens(self) -> Tokens:
        """Of what engines answered since."""
        return Tokens(*self.new_tokens)

    def to_ask(self) -> NDArray[np.int64]:
        """Rows that an engine is to answer."""
        return self.copies.to_ask(self.ledger.unfinished())

    def take_kept(self) -> None:
        """Answers of other runs for rows that have none."""
        if self.settings.cache is None:
            return
        self.cache = KeptAnswers(self.settings.cache, self.job, self.salt, self.hear)
        with self.stopwatch.phase("cache"):
            self.listener(PhaseStarted("cache", str(self.settings.cache.folder)))
            self.cache.take(self.to_ask(), self._end_with)
            self.copies.settle()
        if taken := self.ledger.taken[CACHE]:
            self.hear(Note(f"{plural(taken, 'answer is', 'answers are')} taken from {self.settings.cache.folder}"))

    def receive(self, result: Result, asked: Asked) -> None:
        """Journal and count an engine's result."""
        if self.cache is not None:
            self.cache.keep(result)
        usage = result.usage
        for place, tokens in enumerate((usage.prompt, usage.cached, usage.output)):
            self.new_tokens[place] += tokens
        self._end_with(result, asked)

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
