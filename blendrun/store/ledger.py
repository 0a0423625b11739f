"""The ledger: for every row of the job, whether it is finished and where its answer lies in the journal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from blendrun.endpoints.base import MOST_TOKENS
from blendrun.jobs.job import Job
from blendrun.store.journal import Entry
from blendrun.store.row_keys import RowKeys

_BATCH = 8192
# Reasons and codes told apart: they are words of servers.
_MOST_WORDS, _OTHER = 100, "other"
# Why an answer ended: at its limit of tokens, or at the end of the context.
CUT = "length"
UNFINISHED, ANSWERED, FAILED = 0, 1, 2


class Ledger:
    """Columns beside the Job's, about 30 bytes a row, so that nothing grows with the answers.

    state: u8 (N,), UNFINISHED, ANSWERED or FAILED. offset, length: i64 (N,), bytes in the journal.
    finished: rows that are not UNFINISHED. cut: bool (N,), answers of which a choice ended at its token limit;
    cut_short: how many. promised: answers that were to have a form. usage: i64 (3,), prompt, cached and output tokens
    of all finished rows.
    """

    def __init__(self, job: Job, salt: bytes) -> None:
        rows = len(job)
        self.state: NDArray[np.uint8] = np.zeros(rows, np.uint8)
        self.offset: NDArray[np.int64] = np.full(rows, -1, np.int64)
        self.length: NDArray[np.int64] = np.zeros(rows, np.int64)
        self._tokens: NDArray[np.int32] = np.zeros((rows, 3), np.int32)
        self.cut: NDArray[np.bool_] = np.zeros(rows, np.bool_)
        self.finished = self.promised = self.cut_short = 0
        self.finish_reasons: Counter[str] = Counter()
        self.error_codes: Counter[str] = Counter()
        # By COPY and CACHE, of the journal: finished rows that no engine was asked for.
        self.taken: Counter[str] = Counter()
        self._job, self._salt = job, salt

    @property
    def usage(self) -> NDArray[np.int64]:
        total: NDArray[np.int64] = self._tokens.sum(axis=0, dtype=np.int64)
        return total

    def unfinished(self) -> NDArray[np.int64]:
        """Accepted rows without a result, ascending."""
        return np.flatnonzero((self.state == UNFINISHED) & ~self._job.rejected)

    def mark(self, row: int, entry: Entry) -> None:
        """Row `row` ended with this entry."""
        self.finished += 1
        self.state[row] = ANSWERED if entry.ok else FAILED
        self.offset[row], self.length[row] = entry.offset, entry.length
        # Of one token there is nothing to cut: a label, or a choice by its letter.
        self.cut[row] = entry.ok and CUT in entry.finish_reasons and self._job.max_new_tokens[row] != 1
        self.cut_short += int(self.cut[row])
        self.promised += entry.ok and entry.promised
        usage = entry.usage
        self._tokens[row] = [min(max(count, 0), MOST_TOKENS) for count in (usage.prompt, usage.cached, usage.output)]
        if entry.taken is not None:
            _count(self.taken, entry.taken)
        for reason in entry.finish_reasons:
            _count(self.finish_reasons, reason)
        if entry.error_code is not None:
            _count(self.error_codes, entry.error_code)

    def load(self, entries: Iterable[Entry]) -> None:
        """Mark the rows that a journal has finished. Work of other jobs or settings is passed over."""
        keys, stream = RowKeys(self._job, self._job.accepted, self._salt), iter(entries)
        while len(keys) and (batch := list(islice(stream, _BATCH))):
            for entry, row in zip(batch, keys.rows(entry.key for entry in batch).tolist(), strict=True):
                if row >= 0 and self.state[row] == UNFINISHED:
                    self.mark(row, entry)


def _count(words: Counter[str], word: str) -> None:
    words[word if word in words or len(words) < _MOST_WORDS else _OTHER] += 1
