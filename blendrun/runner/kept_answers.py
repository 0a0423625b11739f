"""Answers of earlier runs and of other files, in the place of an engine's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b

import numpy as np
import orjson
from numpy.typing import NDArray

from blendrun.endpoints.base import Usage
from blendrun.endpoints.promises import promise_of
from blendrun.engine.base import Result
from blendrun.events import Listener, Note
from blendrun.jobs.job import Job
from blendrun.jobs.line import salted_key
from blendrun.runner.flight import Asked
from blendrun.runner.settings import CacheSettings
from blendrun.store.answer_cache import AnswerCache, KeptAnswer
from blendrun.store.journal import CACHE

_OK = 200
# Rows that are looked for at a time.
_ROWS = 8192


class KeptAnswers:
    """What a job may take of a cache, and leaves to it.

    Keys are of the request without its `custom_id`, and of all else that decides an answer: model, engine and its
    settings, versions of the packages that compute it.
    """

    def __init__(self, settings: CacheSettings, job: Job, salt: bytes, listener: Listener) -> None:
        """salt: the manifest's. Raises OutputUnavailableError."""
        self._cache, self._job, self._listener = AnswerCache(settings.folder, settings.most_bytes), job, listener
        self._salt = blake2b(orjson.dumps([salt.hex(), *settings.versions]), digest_size=16).digest()

    def rows(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of the rows that have an answer: i64."""
        found: list[NDArray[np.int64]] = [rows[:0]]
        for some in self._some(rows):
            known = self._cache.known(self._keys(some))
            found.append(some[np.array(known, dtype=np.bool_)])
        self._tell()
        return np.concatenate(found)

    def take(self, rows: NDArray[np.int64], end_with: Callable[[Result, Asked, str], None]) -> None:
        """Hand over the answers that there are, as results of their rows that took nothing of an engine."""
        for some in self._some(rows):
            for place, kept in self._cache.take(self._keys(some)):
                row = int(some[place])
                request = self._job.request(row)
                asked = Asked(request.custom_id, promise_of(request.body), request.spoken)
                end_with(Result(row, _OK, kept.body, Usage(), kept.finish_reasons), asked, CACHE)
        self._tell()

    def keep(self, result: Result) -> None:
        """Leave an engine's answer to other runs, where it may be."""
        if result.error_code is None and self._job.keepable[result.row]:
            answer = KeptAnswer(result.body, result.usage, result.finish_reasons)
            self._cache.put(self._key(result.row), answer)
            self._tell()

    def close(self) -> None:
        """Nothing more will come."""
        self._cache.close()
        self._tell()

    def _some(self, rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        rows = rows[self._job.keepable[rows]]
        return (rows[begin : begin + _ROWS] for begin in range(0, len(rows), _ROWS))

    def _keys(self, rows: NDArray[np.int64]) -> Sequence[bytes]:
        return [self._key(row) for row in rows.tolist()]

    def _key(self, row: int) -> bytes:
        return salted_key(self._job.asked[row].tobytes(), self._salt)

    def _tell(self) -> None:
        while self._cache.notes:
            self._listener(Note(self._cache.notes.pop(0), warning=True))
