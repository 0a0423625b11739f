"""The journal: every finished request, on disk the moment it is finished.

An append-only text file. After a header line, one record a line:

    <crc32, 8 hex digits> <meta JSON><TAB><answer JSON>

The checksum covers everything behind it. JSON holds no raw tab or newline, so a record is found again after any damage:
a line whose checksum does not fit is passed over and its request is run again. A tail without its newline is cut off.
"""

from __future__ import annotations

import os
import re
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import orjson

from blendrun.endpoints.base import Usage
from blendrun.errors import BlendrunError, ManifestMismatchError, OutputUnavailableError, unwritable

_HEADER = b"blendrun-journal 1\n"
_ANY_HEADER = re.compile(rb"blendrun-journal \d+\n")
# Answers survive the death of the process at once, and a power cut after at most this long.
_FSYNC_INTERVAL_S = 5.0
_CRC_BYTES = 9


@dataclass(frozen=True, slots=True)
class Record:
    """One finished request.

    key: 16 bytes, the identity of the work. answer: a line of the output or errors file, JSON without newline.
    """

    key: bytes
    ok: bool
    usage: Usage
    finish_reasons: tuple[str, ...]
    error_code: str | None
    answer: bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a record lies: offset and length (bytes) of its answer in the journal, and its meta data."""

    key: bytes
    ok: bool
    usage: Usage
    finish_reasons: tuple[str, ...]
    error_code: str | None
    offset: int
    length: int


class Journal:
    """Open for append by one process; made if it is not there. Use as a context manager."""

    def __init__(self, path: Path) -> None:
        """Raises ManifestMismatchError for a file of another format, OutputUnavailableError if it cannot be opened.

        emptied: whether the file was there, without even its header. damaged: lines that the last reading passed over.
        """
        self._path = path
        existed = path.exists()
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            raise OutputUnavailableError(f"cannot open the journal {path}: {error.strerror}") from error
        self._synced = time.monotonic()
        self.damaged = 0
        size = os.fstat(self._file).st_size
        self.emptied = existed and size < len(_HEADER)
        if not self.emptied and existed and not self._is_ours():
            os.close(self._file)
            raise ManifestMismatchError(f"{path} was written by another version; move it away, or use --no-resume")
        self._end = self._cut_torn_tail(size) if size >= len(_HEADER) else 0
        if self._end == 0:
            os.ftruncate(self._file, 0)
            self._write(_HEADER)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def empty(self) -> bool:
        """Whether nothing has been written yet."""
        return self._end == len(_HEADER)

    def append(self, record: Record) -> Entry:
        """Write one record; it is in the operating system's hands when this returns."""
        meta = orjson.dumps(
            {
                "key": record.key.hex(),
                "ok": record.ok,
                "usage": (record.usage.prompt, record.usage.cached, record.usage.output),
                "finish": record.finish_reasons,
                "code": record.error_code,
            }
        )
        text = meta + b"\t" + record.answer
        start = self._end + _CRC_BYTES + len(meta) + 1
        self._write(_checksum(text) + text + b"\n")
        if time.monotonic() - self._synced > _FSYNC_INTERVAL_S:
            self.sync()
        return Entry(
            record.key,
            record.ok,
            record.usage,
            record.finish_reasons,
            record.error_code,
            start,
            len(record.answer),
        )

    def entries(self) -> Iterator[Entry]:
        """All sound records, oldest first. Damaged lines are counted in `damaged`."""
        with self._path.open("rb") as file:
            header = file.readline()
            position = len(header)
            self.damaged = int(header != _HEADER)
            for line in file:
                entry = _parse(line, position)
                position += len(line)
                if entry is None:
                    self.damaged += 1
                else:
                    yield entry

    def drop_errors(self) -> None:
        """Rewrite the journal without its error records, so that their requests run again."""
        kept = self._path.with_name(f"{self._path.name}.kept")
        kept.unlink(missing_ok=True)
        try:
            with Journal(kept) as journal:
                for entry in self.entries():
                    if entry.ok:
                        usage, reasons = entry.usage, entry.finish_reasons
                        answer = self.answer(entry.offset, entry.length)
                        journal.append(Record(entry.key, True, usage, reasons, entry.error_code, answer))
            kept.rename(self._path)
        except BlendrunError:
            # Half a copy would take room that there is too little of.
            kept.unlink(missing_ok=True)
            raise
        os.close(self._file)
        self._file = os.open(self._path, os.O_RDWR | os.O_APPEND)
        self._end = os.fstat(self._file).st_size

    def answer(self, offset: int, length: int) -> bytes:
        """The answer at an Entry's place."""
        return os.pread(self._file, length, offset)

    def sync(self) -> None:
        """Force everything written so far onto the disk."""
        try:
            os.fsync(self._file)
        except OSError as error:
            raise self._unwritable(error) from error
        self._synced = time.monotonic()

    def close(self) -> None:
        if self._file >= 0:
            try:
                self.sync()
            finally:
                os.close(self._file)
                self._file = -1

    def _write(self, data: bytes) -> None:
        try:
            done = 0
            while done < len(data):
                done += os.write(self._file, data[done:])
        except OSError as error:
            raise self._unwritable(error) from error
        self._end += len(data)

    def _unwritable(self, error: OSError) -> OutputUnavailableError:
        return unwritable(self._path, error, "the same command resumes: what is in it is kept")

    def _is_ours(self) -> bool:
        """A good header, or a damaged one before at least one sound record: no damage costs what it does not touch."""
        with self._path.open("rb") as file:
            header = file.readline()
            if header == _HEADER or _ANY_HEADER.fullmatch(header):
                return header == _HEADER
            return any(_parse(line, 0) is not None for line in file)

    def _cut_torn_tail(self, size: int) -> int:
        """Drop what follows the last newline (a record that was being written when the process died)."""
        end = size
        while end > 0:
            start = max(0, end - 65536)
            newline = os.pread(self._file, end - start, start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            os.ftruncate(self._file, end)
        return end


def _checksum(text: bytes) -> bytes:
    return b"%08x " % zlib.crc32(text)


def _parse(line: bytes, position: int) -> Entry | None:
    text = line[_CRC_BYTES:-1]
    if not text or line[:_CRC_BYTES] != _checksum(text):
        return None
    meta_text, _, answer = text.partition(b"\t")
    meta = orjson.loads(meta_text)
    return Entry(
        key=bytes.fromhex(meta["key"]),
        ok=meta["ok"],
        usage=Usage(*meta["usage"]),
        finish_reasons=tuple(meta["finish"]),
        error_code=meta["code"],
        offset=position + _CRC_BYTES + len(meta_text) + 1,
        length=len(answer),
    )
