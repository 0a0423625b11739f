"""Requests that ask the same as another one of the job: they get its answer, in lines of their own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice

import numpy as np
import orjson
from numpy.typing import NDArray

from blendrun.endpoints.base import Usage
from blendrun.errors import LineError
from blendrun.jobs.job import Job
from blendrun.store.answers import copied_line
from blendrun.store.journal import COPY, Journal, Record
from blendrun.store.ledger import ANSWERED, UNFINISHED, Ledger
from blendrun.tokens.check import RefusedPrompts

# Lines written between two results: thousands of copies of one request must not keep an engine waiting.
_AT_ONCE = 64
# Where a line's id ends by, and how it does.
_ID_BYTES, _MARK = 128, f'_{COPY}"'.encode()


class Copies:
    """Of one job, about 10 bytes a row and 16 a copy.

    Of equal requests the first is asked, or none where one was answered before. Its end is that of the others, be it an
    answer or an error, whatever the error: what ends an engine must not do so once more for each copy.
    """

    def __init__(
        self, job: Job, ledger: Ledger, journal: Journal, salt: bytes, failed: Callable[[int, str, str], None]
    ) -> None:
        """failed: told row, code and message of a copy that ends in an error. The ledger has been loaded."""
        self._job, self._ledger, self._journal, self._salt, self._failed = job, ledger, journal, salt, failed
        rows, leads = _followers(job, ledger)
        order = np.argsort(leads, kind="stable")
        # Copies without an end, by the row that is asked in their place.
        self._rows, self._leads = rows[order], leads[order]
        self._follows = np.zeros(len(job), dtype=np.bool_)
        self._follows[rows] = True
        # Places in `_rows` whose turn has come.
        self._due: deque[range] = deque()
        self._last: tuple[int, Record | None] = -1, None

    def to_ask(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of the rows that do not wait for another one's answer."""
        return rows[~self._follows[rows]]

    def ended(self, row: int) -> None:
        """A row has its end; those that ask the same get it with the next steps."""
        first, end = np.searchsorted(self._leads, [row, row + 1]).tolist()
        if first < end:
            self._due.append(range(first, end))

    def step(self) -> None:
        """Write some of the lines whose turn has come."""
        left = _AT_ONCE
        while self._due and left:
            places = self._due.popleft()
            for place in islice(places, left):
                self._copy(int(self._rows[place]), int(self._leads[place]))
            if len(places) > left:
                self._due.appendleft(places[left:])
            left = max(left - len(places), 0)

    def settle(self) -> None:
        """Write all lines whose turn has come, those too that a kill has kept from it."""
        self._due.clear()
        state = self._ledger.state
        for place in np.flatnonzero(state[self._leads] != UNFINISHED).tolist():
            self._copy(int(self._rows[place]), int(self._leads[place]))

    def copied(self, row: int) -> bool:
        """Whether a row that has an answer got that of an equal request."""
        ledger = self._ledger
        begin = self._journal.answer(int(ledger.offset[row]), min(int(ledger.length[row]), _ID_BYTES))
        return begin.partition(b",")[0].endswith(_MARK)

    def _copy(self, row: int, lead: int) -> None:
        ledger = self._ledger
        if ledger.state[row] != UNFINISHED:
            return
        if self._last[0] != lead:
            self._last = lead, self._journal.record(int(ledger.offset[lead]), int(ledger.length[lead]))
        found = self._last[1]
        if found is None:
            # Damaged since it was written: the next run passes it over, and asks again.
            return
        key = self._job.key(row, self._salt)
        line = copied_line(key, self._job.request(row).custom_id, found.answer)
        record = Record(key, found.ok, Usage(), found.finish_reasons, found.error_code, line, COPY, found.promised)
        ledger.mark(row, self._journal.append(record))
        if not found.ok:
            self._failed(row, found.error_code or "", orjson.loads(found.answer)["error"]["message"] or "")


def with_copies(refused: RefusedPrompts, job: Job) -> RefusedPrompts:
    """What no engine will answer, with all that ask the same."""
    copies = np.flatnonzero(job.copy_of >= 0)
    copies = copies[np.isin(job.copy_of[copies], refused.rows)]

    def error(row: int) -> LineError:
        if job.copy_of[row] < 0:
            return refused.error(row)
        found = refused.error(int(job.copy_of[row]))
        return LineError(found.code, found.message, job.request(row).custom_id)

    return RefusedPrompts(np.union1d(refused.rows, copies), error)


def _followers(job: Job, ledger: Ledger) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows without an end that follow another one, and which: i64, i64."""
    state, first_of = ledger.state, job.copy_of
    copies = np.flatnonzero(first_of >= 0)
    lead = np.arange(len(job), dtype=np.int64)
    # A run that did not look for copies, or one with another limit, may have answered any of them.
    answered = copies[state[copies] == ANSWERED]
    answered = answered[state[first_of[answered]] != ANSWERED]
    # Backwards, so that the first one counts.
    lead[first_of[answered[::-1]]] = answered[::-1]
    moved = np.unique(first_of[answered])
    rows = np.concatenate((copies, moved))
    leads = lead[np.concatenate((first_of[copies], moved))]
    waits = (state[rows] == UNFINISHED) & (rows != leads)
    return rows[waits], leads[waits]
