"""unkept.jsonl: answers that do not keep the form that their request was promised, a line each, in input order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
import orjson
from numpy.typing import NDArray

from blendrun.engine.scheduler.log_file import torn
from blendrun.errors import unwritable
from blendrun.files import PRIVATE, replacing
from blendrun.jobs.job import Job
from blendrun.store.found import NOTHING, Found
from blendrun.store.ids import HEAD, line_id
from blendrun.store.journal import COPY, KEY_BYTES
from blendrun.store.ledger import ANSWERED, Ledger
from blendrun.store.row_keys import RowKeys

# Bytes of a line: an id of 512 characters and a reason, written out, are far less.
_LONGEST = 1 << 20
_BATCH = 8192


class UnkeptAnswers:
    """A list beside the journal. It is written as answers come, so that it is there whatever ends the run."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, job: Job, row: int, key: bytes, custom_id: str, reason: str, taken: str | None = None) -> int:
        """Row `row`, whose work `key` names, has an answer that breaks its promise. taken: see `journal.Record`.

        Returns the bytes of its line. Raises OutputUnavailableError.
        """
        name, number = job.where(row)
        entry = {"id": line_id(key, taken), "custom_id": custom_id, "reason": reason, "line": number}
        if len(job.sources) > 1:
            entry["file"] = name
        try:
            # What a kill has cut short stays a line of its own.
            begin = b"\n" if torn(self._path) else b""
            with self._path.open("ab") as file:
                file.write(begin + (line := orjson.dumps(entry) + b"\n"))
        except OSError as error:
            raise unwritable(self._path, error, "the same command resumes") from error
        return len(line)

    def settle(self, job: Job, ledger: Ledger, salt: bytes, copied: Callable[[int], bool] = lambda _: False) -> Found:
        """Put the list into input order, without answers that are no longer this job's. Returns those that are left.

        copied: whether an answered row got the answer of an equal request: then it breaks what that one's does.

        What is kept of it meanwhile is a place a row. Raises OutputUnavailableError.
        """
        try:
            with self._path.open("rb") as file:
                answered = RowKeys(job, np.flatnonzero(ledger.state == ANSWERED), salt)
                place: NDArray[np.int64] = np.full(len(job), -1, np.int64)
                entries = _entries(file)
                while len(answered) and (batch := list(islice(entries, _BATCH))):
                    rows = answered.rows(key for key, _ in batch)
                    # Of several lines of a row the last one is of the answer that is kept.
                    for row, (_, start) in zip(rows.tolist(), batch, strict=True):
                        if row >= 0:
                            place[row] = start
                for row, start in _unlisted(job, ledger, place, copied):
                    file.seek(start)
                    found = orjson.loads(file.readline(_LONGEST))
                    custom_id = job.request(row).custom_id
                    size = self.add(job, row, job.key(row, salt), custom_id, found["reason"], COPY)
                    place[row] = self._path.stat().st_size - size
                listed = np.flatnonzero(place >= 0)
                with replacing(self._path, PRIVATE) as ordered:
                    for start in place[listed].tolist():
                        file.seek(start)
                        ordered.write(file.readline(_LONGEST))
        except FileNotFoundError:
            return NOTHING
        except OSError as error:
            raise unwritable(self._path, error, "the same command resumes") from error
        return Found.of(job, listed)


def _unlisted(
    job: Job, ledger: Ledger, place: NDArray[np.int64], copied: Callable[[int], bool]
) -> Iterator[tuple[int, int]]:
    """Rows that have the answer of a listed one and are not listed, and where the line of that one begins."""
    copies = np.flatnonzero(job.copy_of >= 0)
    if not len(copies):
        return
    first = np.arange(len(job), dtype=np.int64)
    first[copies] = job.copy_of[copies]
    start = np.full(len(job), -1, np.int64)
    listed = np.flatnonzero(place >= 0)
    start[first[listed]] = place[listed]
    for row in np.flatnonzero((place < 0) & (ledger.state == ANSWERED) & (start[first] >= 0)).tolist():
        if copied(row):
            yield row, int(start[first[row]])


def _entries(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Keys of the answers that a list names, and where its lines begin.

    What a crash has cut short is passed over: its request runs again. So is what is longer than any line of ours.
    """
    start, whole = 0, True
    while line := file.readline(_LONGEST):
        ends = line.endswith(b"\n")
        if whole and ends and (key := _key(line)) is not None:
            yield key, start
        start, whole = start + len(line), ends


def _key(line: bytes) -> bytes | None:
    try:
        key = bytes.fromhex(orjson.loads(line)["id"].removeprefix(HEAD).partition("_")[0])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return key if len(key) == KEY_BYTES else None
