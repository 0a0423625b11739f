"""The Job: N request lines as columns. The lines stay in their files, to be read again when needed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from blendrun.endpoints.rules import Rules
from blendrun.errors import ErrorCode, InputInvalidError, LineError
from blendrun.jobs.first_rows import copies_of
from blendrun.jobs.line import RequestLine, line_too_long, parse_line, raw_digest, salted_key
from blendrun.jobs.reader import SourceReader
from blendrun.jobs.same import Drawn, Sameness
from blendrun.jobs.source import Source

# The columns, in the order of Job's fields.
COLUMNS = (
    "source",
    "offset",
    "length",
    "line_number",
    "endpoint",
    "content",
    "rejected",
    "duplicate_of",
    "max_new_tokens",
    "choices",
    "asked",
    "keepable",
    "copy_of",
)


@dataclass(frozen=True, slots=True)
class Reading:
    """The settings lines were read with; reading one again needs the same."""

    default_url: str | None
    max_line_bytes: int
    rules: Rules
    # Which requests are equal; None where nobody asks.
    same: Sameness | None = None

    def parse(self, raw: bytes) -> RequestLine:
        """Raises LineError."""
        return parse_line(raw, self.default_url, self.max_line_bytes, self.rules)

    def copies(self, asked: NDArray[np.uint8], rejected: NDArray[np.bool_]) -> NDArray[np.int64]:
        """For each row the first one that asks the same, -1 where that is itself: i64 (N,). Columns as in `Job`."""
        if self.same is None or not self.same.copies:
            return np.full(len(rejected), -1, dtype=np.int64)
        return copies_of(asked, rejected)


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """N rows in input order, a row for each line that is not blank; about 85 bytes a row.

    sources: the inputs, in the order given.
    fingerprint: hex digest of all indexed rows in order, refused ones too. It depends on no file name, on no
        compression or blank line, nor on how an accepted line writes its JSON.
    source: u16 (N,), index into `sources`.
    offset, length: i64 (N,), bytes of the line in its source, without the newline.
    line_number: i64 (N,), 1-based within its source, blank lines counted.
    endpoint: i8 (N,), position in the endpoint registry; -1 where the line is no request.
    content: u8 (N, 16), the request's content digest, also where only the rules of this run refuse it; of a line that
        is no request, a digest of its bytes.
    rejected: bool (N,), lines that are no request, and duplicates.
    duplicate_of: i64 (N,), row that had this custom_id first; -1 where none.
    max_new_tokens: i32 (N,), bound of output tokens a choice; 0 means open: up to the end of the context.
    choices: i16 (N,), answers asked for; 0 where the line is no request.
    asked: u8 (N, 16), digest of all in the line that decides its answer; zeros where it is answered by itself.
    keepable: bool (N,), whether its answer may be kept for other runs.
    copy_of: i64 (N,), the first row that asks the same; -1 where none.
    models: how many lines name each model; of very many names the first thousand, of long ones the beginning.
    passed_over: how many lines have each field that has no effect, of those that are answered without it; the same.
    with_tools: lines that bring tools. drawn: lines whose answers are drawn; of none where nobody asks.

    Methods that read may be called from many threads. `close` (or a with statement) ends the descriptors.
    """

    sources: tuple[Source, ...]
    fingerprint: str
    source: NDArray[np.uint16]
    offset: NDArray[np.int64]
    length: NDArray[np.int64]
    line_number: NDArray[np.int64]
    endpoint: NDArray[np.int8]
    content: NDArray[np.uint8]
    rejected: NDArray[np.bool_]
    duplicate_of: NDArray[np.int64]
    max_new_tokens: NDArray[np.int32]
    choices: NDArray[np.int16]
    asked: NDArray[np.uint8]
    keepable: NDArray[np.bool_]
    copy_of: NDArray[np.int64]
    reading: Reading
    reader: SourceReader
    models: Counter[str] = field(default_factory=Counter)
    passed_over: Counter[str] = field(default_factory=Counter)
    with_tools: int = 0
    drawn: Drawn = field(default_factory=Drawn)

    def __len__(self) -> int:
        return len(self.rejected)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the sources, for every Job made from this one by `select` too. Later reads open them anew."""
        self.reader.close()

    @property
    def accepted(self) -> NDArray[np.int64]:
        """Rows that can run, ascending: i64 (M,)."""
        return np.flatnonzero(~self.rejected)

    @property
    def distinct(self) -> NDArray[np.int64]:
        """Accepted rows without copies of earlier ones, ascending: i64."""
        return np.flatnonzero(~self.rejected & (self.copy_of < 0))

    def select(self, limit: int) -> Job:
        """The first `limit` rows, on the same memory. The fingerprint stays that of the whole job."""
        columns: dict[str, Any] = {name: getattr(self, name)[: max(limit, 0)] for name in COLUMNS}
        return replace(self, **columns)

    def take(self, rows: NDArray[np.int64]) -> Job:
        """Some of the rows, in their order; they count from 0. The fingerprint stays that of the whole job.

        rows: i64 (n,), ascending; with a duplicate, the row that it is one of.
        """
        columns: dict[str, Any] = {name: getattr(self, name)[rows] for name in COLUMNS}
        again = columns["duplicate_of"] >= 0
        columns["duplicate_of"][again] = np.searchsorted(rows, columns["duplicate_of"][again])
        columns["copy_of"] = self.reading.copies(columns["asked"], columns["rejected"])
        return replace(self, **columns)

    def where(self, row: int) -> tuple[str, int]:
        """Name of the source and 1-based line number in it."""
        return self.sources[self.source[row]].name, int(self.line_number[row])

    def key(self, row: int, salt: bytes) -> bytes:
        """16 bytes: the identity of this row's work. salt: hash of what else decides the answer."""
        return salted_key(self.content[row].tobytes(), salt)

    def read_raw(self, row: int) -> bytes:
        """The line's bytes as they are in the file now, unchecked. Raises InputMissingError."""
        return self.reader.read(int(self.source[row]), int(self.offset[row]), int(self.length[row]))

    def request(self, row: int) -> RequestLine:
        """Read an accepted row again.

        Raises InputInvalidError where the line is no longer what was indexed, InputMissingError where it
        cannot be read, ValueError for a rejected row.
        """
        if self.rejected[row]:
            raise ValueError(f"row {row} is rejected; `error` says why")
        return self._reread(row)

    def error(self, row: int) -> LineError:
        """Why a row is rejected, found by validating its line again. Raises as `request` does."""
        if not self.rejected[row]:
            raise ValueError(f"row {row} is accepted")
        if self.duplicate_of[row] >= 0:
            return self._duplicate(row)
        if self.length[row] > self.reading.max_line_bytes:
            return line_too_long(int(self.length[row]), self.reading.max_line_bytes)
        raw = self.read_raw(row)
        try:
            self.reading.parse(raw)
        except LineError as error:
            if (error.content or raw_digest([raw])) == self.content[row].tobytes():
                return error
        raise self._changed(row)

    def _duplicate(self, row: int) -> LineError:
        custom_id = self._reread(row).custom_id
        name, number = self.where(int(self.duplicate_of[row]))
        message = f"custom_id {custom_id!r} is already that of line {number} of {name}; the first one is kept"
        return LineError(ErrorCode.DUPLICATE_CUSTOM_ID, message, custom_id)

    def _reread(self, row: int) -> RequestLine:
        try:
            request = self.reading.parse(self.read_raw(row))
        except LineError:
            raise self._changed(row) from None
        if request.content != self.content[row].tobytes():
            raise self._changed(row)
        return request

    def _changed(self, row: int) -> InputInvalidError:
        name, number = self.where(row)
        message = f"{name} changed while the job was running: line {number} is not what it was"
        return InputInvalidError(f"{message}; run again to take the file as it is now")
