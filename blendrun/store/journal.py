"""The journal: every finished request, on disk the moment it is finished.

An append-only text file. After a header line, one record a line:

    <crc32, 8 hex digits> <meta JSON><TAB><answer JSON>

The checksum covers everything behind it. JSON holds no raw tab or newline, so a record is found again after any damage:
a line whose checksum does not fit, or that says what this version does not know, is passed over and its request is run
again. A tail without its newline is cut off.
"""

from __future__ import annotations

import os
import re
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

import msgspec
import orjson

from blendrun.endpoints.base import MOST_TOKENS, Usage
from blendrun.errors import ManifestMismatchError, OutputUnavailableError, unreadable, unwritable

HEADER = b"blendrun-journal 1\n"
_ANY_HEADER = re.compile(rb"blendrun-journal \d+\n")
# Answers survive the death of the process at once, and a power cut after at most this long.
_FSYNC_INTERVAL_S = 5.0
CRC_BYTES = 9
KEY_BYTES = 16
# Of a line: no more is written, and where damage has made longer ones no more is held.
LONGEST_RECORD = 320 << 20
# Where an answer was taken from that no engine was asked for: an equal request's, or the answers kept from other runs.
COPY, CACHE = "copy", "cache"
# What a record says before its answer is less, but for lines of very many prompts.
_USUAL_META = 1 << 10
_RESUMES = "the same command resumes: what is in it is kept"


class _Meta(msgspec.Struct):
    """What a record says beside its answer; what later versions may add is passed over."""

    key: str
    ok: bool
    usage: tuple[int, int, int]
    finish: tuple[str, ...]
    code: str | None
    taken: str | None = None
    promised: bool = False


_META = msgspec.json.Decoder(_Meta)


@dataclass(frozen=True, slots=True)
class Record:
    """One finished request.

    key: 16 bytes, the identity of the work. answer: a line of the output or errors file, JSON without newline.
    usage: nothing where no engine was asked. taken: COPY or CACHE then. promised: whether the answer was to have a
    form.
    """

    key: bytes
    ok: bool
    usage: Usage
    finish_reasons: tuple[str, ...]
    error_code: str | None
    answer: bytes
    taken: str | None = None
    promised: bool = False


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
    taken: str | None = None
    promised: bool = False


def _anything(ok: bool, answer: bytes) -> bool:
    return True


class Journal:
    """Open for append by one process; made if it is not there. Use as a context manager.

    Whatever the file system refuses is an OutputUnavailableError.
    """

    def __init__(self, path: Path) -> None:
        """Raises ManifestMismatchError for a file of another format, OutputUnavailableError if it cannot be opened.

        emptied: whether the file was there, without even its header. damaged: lines that the last reading passed over.
        """
        self._path, self._file = path, -1
        self._synced = time.monotonic()
        self.damaged = 0
        try:
            existed = path.exists()
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            self._begin(existed)
        except OSError as error:
            self._drop()
            what = f"cannot open the journal {path}: {error.strerror}; fix that, and {_RESUMES}"
            raise OutputUnavailableError(what) from error
        except BaseException:
            self._drop()
            raise

    def _begin(self, existed: bool) -> None:
        """Check what is there, and write the header where nothing is."""
        size = os.fstat(self._file).st_size
        self.emptied = existed and size < len(HEADER)
        if not self.emptied and existed and not self._is_ours():
            raise ManifestMismatchError(
                f"{self._path} was written by another version; move it away, or use --no-resume"
            )
        self._end = self._cut_torn_tail(size) if size >= len(HEADER) else 0
        if self._end == 0:
            os.ftruncate(self._file, 0)
            self._write(HEADER)

    def _drop(self) -> None:
        """Close the file of a journal that cannot be used."""
        if self._file >= 0:
            with suppress(OSError):
                os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def there(self) -> bool:
        """Whether what is written can be found again: a folder may be taken away while a run works in it."""
        try:
            ours, named = os.fstat(self._file), self._path.stat()
        except OSError:
            return False
        return (ours.st_dev, ours.st_ino) == (named.st_dev, named.st_ino)

    @property
    def empty(self) -> bool:
        """Whether nothing has been written yet."""
        return self._end == len(HEADER)

    def append(self, record: Record) -> Entry:
        """Write one record; it is in the operating system's hands when this returns."""
        usage = Usage(*(min(max(int(count), 0), MOST_TOKENS) for count in msgspec.structs.astuple(record.usage)))
        meta = orjson.dumps(
            {
                "key": record.key.hex(),
                "ok": record.ok,
                "usage": msgspec.structs.astuple(usage),
                "finish": record.finish_reasons,
                "code": record.error_code,
                **({} if record.taken is None else {"taken": record.taken}),
                **({"promised": True} if record.promised else {}),
            }
        )
        text = meta + b"\t" + record.answer
        start = self._end + CRC_BYTES + len(meta) + 1
        self._write(b"%b%b\n" % (_checksum(text), text))
        if time.monotonic() - self._synced > _FSYNC_INTERVAL_S:
            self.sync()
        return Entry(
            *(record.key, record.ok, usage, record.finish_reasons, record.error_code, start, len(record.answer)),
            record.taken,
            record.promised,
        )

    def entries(self, known: Callable[[bool, bytes], bool] = _anything) -> Iterator[Entry]:
        """All sound records, oldest first. Lines that are damaged or not known are counted in `damaged`.

        known: whether an answer (of a success or a failure) has the form that whoever reads it can use.
        """
        with self._reading(), self._path.open("rb") as file:
            header = file.readline(LONGEST_RECORD)
            position = len(header)
            self.damaged = int(header != HEADER)
            for line, length in _lines(file):
                entry = parse_record(line, position)
                if entry is None or not known(entry.ok, line[entry.offset - position : -1]):
                    self.damaged += 1
                else:
                    yield entry
                position += length

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise unreadable(self._path, error, _RESUMES) from error

    def drop_errors(self) -> None:
        """Rewrite the journal without its error records, so that their requests run again."""
        kept = self._path.with_name(f"{self._path.name}.kept")
        try:
            kept.unlink(missing_ok=True)
            with Journal(kept) as journal:
                for entry in self.entries():
                    if entry.ok:
                        journal.append(_record(entry, self.answer(entry.offset, entry.length)))
            kept.rename(self._path)
            file = os.open(self._path, os.O_RDWR | os.O_APPEND)
            self._drop()
            self._file, self._end = file, os.fstat(file).st_size
        except BaseException as error:
            # Half a copy would take room that there is too little of.
            with suppress(OSError):
                kept.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise unwritable(kept, error, _RESUMES) from error
            raise

    def answer(self, offset: int, length: int) -> bytes:
        """The answer at an Entry's place."""
        with self._reading():
            data = os.pread(self._file, length, offset)
            while len(data) < length and (more := os.pread(self._file, length - len(data), offset + len(data))):
                data += more
        if len(data) < length:
            raise OutputUnavailableError(f"{self._path} became shorter while it was used; {_RESUMES}")
        return data

    def record(self, offset: int, length: int) -> Record | None:
        """The whole record whose answer is at an Entry's place; None where it is damaged."""
        room, place = _USUAL_META, -1
        while place < 0 < offset and room <= 2 * LONGEST_RECORD:
            before = max(0, offset - room)
            place, room = self.answer(before, offset - before).rfind(b"\n"), 2 * room
        begin = before + place + 1
        line = self.answer(begin, offset + length + 1 - begin)
        entry = parse_record(line, begin)
        if entry is None or entry.offset != offset:
            return None
        answer = line[offset - begin : -1]
        return _record(entry, answer)

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
                self._drop()

    def _write(self, data: bytes) -> None:
        try:
            done, view = 0, memoryview(data)
            while done < len(data):
                done += os.write(self._file, view[done:])
        except OSError as error:
            raise self._unwritable(error) from error
        self._end += len(data)

    def _unwritable(self, error: OSError) -> OutputUnavailableError:
        return unwritable(self._path, error, _RESUMES)

    def _is_ours(self) -> bool:
        """A good header, or a damaged one before at least one sound record: no damage costs what it does not touch."""
        with self._path.open("rb") as file:
            header = file.readline(LONGEST_RECORD)
            if header == HEADER or _ANY_HEADER.fullmatch(header):
                return header == HEADER
            return any(parse_record(line, 0) is not None for line, _ in _lines(file))

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


def _record(entry: Entry, answer: bytes) -> Record:
    usage, reasons, code = entry.usage, entry.finish_reasons, entry.error_code
    return Record(entry.key, entry.ok, usage, reasons, code, answer, entry.taken, entry.promised)


def _checksum(text: bytes) -> bytes:
    return b"%08x " % zlib.crc32(text)


def _lines(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Lines and their lengths; of one that is longer than any record only a part."""
    while line := file.readline(LONGEST_RECORD):
        length, rest = len(line), line
        while not rest.endswith(b"\n") and (rest := file.readline(1 << 20)):
            length += len(rest)
        yield line, length


def parse_record(line: bytes, position: int) -> Entry | None:
    """The record of a line; None for one that is damaged, or says what this version does not know."""
    text = line[CRC_BYTES:-1]
    if not text or line[:CRC_BYTES] != _checksum(text):
        return None
    meta_text, _, answer = text.partition(b"\t")
    try:
        meta = _META.decode(meta_text)
        key = bytes.fromhex(meta.key)
    except (msgspec.DecodeError, ValueError):
        return None
    if len(key) != KEY_BYTES:
        return None
    return Entry(
        key=key,
        ok=meta.ok,
        usage=Usage(*(min(max(count, 0), MOST_TOKENS) for count in meta.usage)),
        finish_reasons=meta.finish,
        error_code=meta.code,
        offset=position + CRC_BYTES + len(meta_text) + 1,
        length=len(answer),
        taken=meta.taken,
        promised=meta.promised,
    )
