"""The failed lines of one run: told as they come, counted, and too many of them a reason to stop."""

from __future__ import annotations

import numpy as np
import orjson

from blendrun.errors import InputInvalidError, TooManyErrorsError
from blendrun.events import Listener, Note
from blendrun.jobs.job import Job
from blendrun.store.answers import write_errors
from blendrun.store.failures import SHOWN_KINDS, ErrorLimit, Failures, shown
from blendrun.store.folder import path_text
from blendrun.store.journal import Journal
from blendrun.store.ledger import FAILED, UNFINISHED, Ledger
from blendrun.store.own_files import OwnFiles
from blendrun.tokens.check import RefusedPrompts


class FailedLines:
    """Of a job and its journal. limit: lines that may fail; None for all of them."""

    def __init__(
        self,
        job: Job,
        ledger: Ledger,
        journal: Journal,
        files: OwnFiles,
        limit: ErrorLimit | None,
        listener: Listener,
    ) -> None:
        self.failures = Failures()
        self._job, self._ledger, self._journal = job, ledger, journal
        self._files, self._state = files, files.state
        self._limit, self._listener = limit, listener

    @property
    def count(self) -> int:
        return self.failures.total

    def collect(self) -> None:
        """Take in the lines that are no request, and what failed in earlier invocations."""
        for row in np.flatnonzero(self._job.rejected).tolist():
            error = self._job.error(row)
            self.add(row, str(error.code), error.message)
        for row in np.flatnonzero(self._ledger.state == FAILED).tolist():
            answer = self._journal.answer(int(self._ledger.offset[row]), int(self._ledger.length[row]))
            error = orjson.loads(answer)["error"]
            self.add(row, error["code"], error["message"] or "", tell=False)

    def add(self, row: int, code: str, message: str, *, tell: bool = True) -> None:
        """Count a failed line; an error of a new kind is shown."""
        sentence = self.failures.add(code, message, self._job.where(row))
        if sentence is not None and tell:
            self._listener(Note(sentence, warning=True))

    def too_many(self, count: int | None = None) -> bool:
        """Whether more lines failed than may. count: other than those taken in so far."""
        failed = self.count if count is None else count
        return self._limit is not None and failed > self._limit.allowed(len(self._job))

    def error(self) -> TooManyErrorsError:
        """What ends the command then."""
        return TooManyErrorsError(
            f"{self.count:,} of {len(self._job):,} lines failed, more than --max-errors {self._limit} allows; "
            f"see {path_text(self._state.errors)}, then fix them or allow more. What is answered stays answered"
        )

    def check(self) -> None:
        """Raises TooManyErrorsError, with all failed lines so far in the errors file."""
        if self.too_many():
            write_errors(self._job, self._ledger, self._journal, self._state, self._files)
            raise self.error()

    def refuse(self, refused: RefusedPrompts | None) -> None:
        """Raises InputInvalidError where a line is no request or in `refused`, with these lines in the errors file."""
        if refused is not None:
            refused = RefusedPrompts(refused.rows[self._ledger.state[refused.rows] == UNFINISHED], refused.error)
            for row in refused.rows.tolist():
                error = refused.error(row)
                self.add(row, str(error.code), error.message)
        if bad := int(self._job.rejected.sum()) + (len(refused.rows) if refused else 0):
            write_errors(self._job, self._ledger, self._journal, self._state, self._files, refused)
            raise InputInvalidError(
                f"{bad:,} of {len(self._job):,} lines cannot be answered, and --strict runs none then; "
                f"they are listed in {path_text(self._state.errors)}"
            )

    def show_counts(self) -> None:
        """Each kind of error with its number of lines, where a run ends without a summary on the screen.

        What was told as it came, and came once, is not told again.
        """
        kinds = self.failures.kinds()
        again = kinds if len(kinds) > SHOWN_KINDS else tuple(kind for kind in kinds if kind.count > 1)
        for text in shown(again):
            self._listener(Note(text, warning=True))
