"""Compressed files and pipes become plain files once, so that every line can be read again by its offset."""

from __future__ import annotations

import os
import tempfile
import time
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from enum import Enum
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, Protocol

import orjson
import zstandard

from blendrun.errors import InputInvalidError, InputMissingError, OutputUnavailableError
from blendrun.jobs.kinds import HEAD_BYTES as KNOWN_BYTES
from blendrun.jobs.kinds import foreign

HEAD_BYTES = 4
_PLAIN_CHUNK = 1024 * 1024
# Small, because one chunk's whole expansion is held: highly repetitive data grows ten thousand-fold and more.
_PACKED_CHUNK = 16 * 1024
# Of zstd's that, as one piece grows thirty thousand-fold.
_ZSTD_PIECE = 1024
# Bytes of a zstd file's window, as a power of two: all of it is held. What zstd itself takes unasked, and its ceiling.
LONGEST_WINDOW, ZSTD_CEILING = 27, 31
_PASSING = ".spool-"
# A file can be written twice within one tick of its clock and keep its time stamp; do not trust younger ones.
_SETTLED_NS = 2_000_000_000


class Packing(Enum):
    """How bytes are packed, by their first four."""

    GZIP = "gzip"
    ZSTD = "zstd"


def packing(head: bytes) -> Packing | None:
    """What `head` (the first HEAD_BYTES) announces; None is plain. Names and suffixes are not asked."""
    if head[:2] == b"\x1f\x8b":
        return Packing.GZIP
    # The second kind is a skippable frame, with which pzstd and seekable files begin.
    if head == b"\x28\xb5\x2f\xfd" or (head[1:] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50):
        return Packing.ZSTD
    return None


def spool(stream: BinaryIO, name: str, folder: Path, longest_window: int = LONGEST_WINDOW) -> tuple[Path, int]:
    """Copy `stream`, unpacked, to a file of `folder` that is named by its content; returns path and bytes.

    longest_window: of zstd, as a power of two.

    Raises InputInvalidError (truncated or corrupt), InputMissingError (unreadable), OutputUnavailableError.
    """
    head = _read(stream, HEAD_BYTES, name)
    kind = packing(head)
    chunks = _chunks(stream, head, _PACKED_CHUNK if kind else _PLAIN_CHUNK, name)
    return _write(_text(unpack(chunks, kind, name, longest_window), name), name, folder)


def refuse_foreign(head: bytes, name: str) -> None:
    """Raises InputInvalidError where a file's first bytes, unpacked, say that it is no text in UTF-8."""
    if (what := foreign(head)) is not None:
        raise InputInvalidError(f"{name} is {what}")


def _text(chunks: Iterator[bytes], name: str) -> Iterator[bytes]:
    """The chunks, if they begin as text does. Raises InputInvalidError."""
    head = b""
    while len(head) < KNOWN_BYTES and (chunk := next(chunks, None)) is not None:
        head += chunk
    refuse_foreign(head, name)
    yield head
    yield from chunks


def spool_file(
    file: BinaryIO, path: Path, name: str, folder: Path, longest_window: int = LONGEST_WINDOW
) -> tuple[Path, int]:
    """`spool` for a regular file; one that has not changed since the last time is not unpacked again."""
    note = folder / f"{_hash(os.fsencode(os.path.realpath(path))).hexdigest()}.json"
    before = _stamp(os.fstat(file.fileno()))
    known = _recall(note, before)
    if known is not None:
        return known
    started = time.time_ns()
    written, size = spool(file, name, folder, longest_window)
    after = os.fstat(file.fileno())
    if _stamp(after) != before:
        raise InputInvalidError(f"{name} changed while it was unpacked; run again when it is complete")
    if started - after.st_mtime_ns > _SETTLED_NS and (status := _status(written)) is not None:
        entry = {"source": before, "spool": written.name, "size": size, "mtime_ns": status.st_mtime_ns}
        _publish(iter([orjson.dumps(entry)]), folder, lambda: note.name, name)
    return written, size


def spool_made(
    file: BinaryIO, path: Path, mark: str, make: Callable[[], Iterator[bytes]], tell: Callable[[], str], folder: Path
) -> tuple[Path, int, str]:
    """Write what is made of an open regular file; one made before with the same `mark` is not made again.

    path: of the file. mark: names how it is made. tell: called when all is made; a sentence about it. Returns path,
    bytes and the sentence. Raises InputInvalidError where the file changes meanwhile, OutputUnavailableError, and what
    `make` raises.
    """
    place = os.fsencode(os.path.realpath(path)) + mark.encode()
    note = folder / f"{_hash(place).hexdigest()}.json"
    before = _stamp(os.fstat(file.fileno()))
    known = _recall(note, before)
    if known is not None:
        return *known, str(orjson.loads(note.read_bytes()).get("said", ""))
    started = time.time_ns()
    written, size = _write(make(), str(path), folder)
    after = os.fstat(file.fileno())
    if _stamp(after) != before:
        raise InputInvalidError(f"{path} changed while it was read; run again when it is complete")
    said = tell()
    if started - after.st_mtime_ns > _SETTLED_NS and (status := _status(written)) is not None:
        entry = {"source": before, "spool": written.name, "size": size, "mtime_ns": status.st_mtime_ns, "said": said}
        _publish(iter([orjson.dumps(entry)]), folder, lambda: note.name, str(path))
    return written, size, said


def remove_halves(folder: Path) -> None:
    """Remove the half copies that killed runs have left. For who holds the folder alone."""
    with suppress(OSError):
        for half in folder.glob(f"{_PASSING}*"):
            half.unlink(missing_ok=True)


def remove_others(folder: Path, keep: Collection[Path]) -> None:
    """Remove copies, and notes of them, of inputs that are no longer the job's. keep: paths of those that are."""
    names = {path.name for path in keep}
    with suppress(OSError):
        for path in [path for path in folder.iterdir() if not path.is_dir()]:
            name = path.name if path.suffix == ".jsonl" else _noted(path)
            if name not in names:
                path.unlink(missing_ok=True)


def _noted(note: Path) -> str | None:
    """Name of the copy that a note speaks of."""
    try:
        entry = orjson.loads(note.read_bytes())
        return str(entry["spool"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _status(path: Path) -> os.stat_result | None:
    """None where nothing can be seen: then it is unpacked again the next time."""
    try:
        return path.stat()
    except OSError:
        return None


def unpack(
    chunks: Iterator[bytes], kind: Packing | None, name: str, longest_window: int = LONGEST_WINDOW
) -> Iterator[bytes]:
    """The plain bytes of `chunks`: all members of a gzip, all frames of a zstd. Raises InputInvalidError."""
    if kind is None:
        return chunks
    pieces = _pieces(chunks) if kind is Packing.ZSTD else chunks
    return _unpack_members(pieces, _decoder(kind, longest_window), kind, name)


def _pieces(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same in small pieces: the decoder gives all that a piece unpacks to at once."""
    for chunk in chunks:
        for start in range(0, len(chunk), _ZSTD_PIECE):
            yield chunk[start : start + _ZSTD_PIECE]


class _Decoder(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


def _decoder(kind: Packing, longest_window: int) -> Callable[[], _Decoder]:
    if kind is Packing.GZIP:
        return lambda: zlib.decompressobj(wbits=31)
    return zstandard.ZstdDecompressor(max_window_size=1 << longest_window).decompressobj


def _unpack_members(
    chunks: Iterator[bytes], start: Callable[[], _Decoder], kind: Packing, name: str
) -> Iterator[bytes]:
    decoder = start()
    for chunk in chunks:
        while chunk:
            if decoder.eof:
                # Tapes and block devices pad with zeros behind the last member.
                chunk = chunk.lstrip(b"\0")
                if not chunk:
                    break
                decoder = start()
            try:
                yield decoder.decompress(chunk)
            except (zlib.error, zstandard.ZstdError) as error:
                raise InputInvalidError(_unsound(name, kind, error)) from error
            chunk = decoder.unused_data if decoder.eof else b""
    if not decoder.eof:
        raise InputInvalidError(f"{name} ends in the middle of its {kind.value} data; fetch or write it again")


def _unsound(name: str, kind: Packing, error: Exception) -> str:
    # zstd's words for a window that is larger than the reader takes.
    if kind is Packing.ZSTD and "too much memory" in str(error):
        return (
            f"{name} was packed with a longer window than is taken unasked, and unpacking it needs as much memory: "
            "give --zstd-window N for a file of zstd --long=N"
        )
    return f"{name} is not sound {kind.value} data: {error}"


def _chunks(stream: BinaryIO, head: bytes, size: int, name: str) -> Iterator[bytes]:
    if head:
        yield head
    while chunk := _read(stream, size, name):
        yield chunk


def _read(stream: BinaryIO, size: int, name: str) -> bytes:
    try:
        return stream.read(size)
    except OSError as error:
        raise InputMissingError(f"cannot read {name}: {error.strerror}") from error


def _write(chunks: Iterator[bytes], name: str, folder: Path) -> tuple[Path, int]:
    digest, size = _hash(b""), 0

    def counted() -> Iterator[bytes]:
        nonlocal size
        for chunk in chunks:
            digest.update(chunk)
            size += len(chunk)
            yield chunk

    path = _publish(counted(), folder, lambda: f"{digest.hexdigest()}.jsonl", name)
    return path, size


def _publish(chunks: Iterator[bytes], folder: Path, file_name: Callable[[], str], name: str) -> Path:
    """Write `chunks` under a passing name, then rename: a killed run leaves no half file under a good name.

    file_name is asked when all is written; mkstemp makes the file readable by its owner only.
    """
    temporary: Path | None = None
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, opened = tempfile.mkstemp(prefix=_PASSING, suffix=".tmp", dir=folder)
        temporary = Path(opened)
        with os.fdopen(handle, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        return temporary.rename(folder / file_name())
    except OSError as error:
        raise OutputUnavailableError(
            f"cannot unpack {name} into {folder}: {error.strerror}; make room there, or unpack it yourself"
        ) from error
    finally:
        if temporary is not None:
            # One that stays is removed by the next run.
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def _recall(note: Path, stamp: list[int]) -> tuple[Path, int] | None:
    """The spooled file that `note` remembers, if neither it nor its source (`stamp`) has changed since."""
    try:
        entry = orjson.loads(note.read_bytes())
        path = note.parent / entry["spool"]
        status = path.stat()
        same = entry["source"] == stamp and [entry["size"], entry["mtime_ns"]] == [
            status.st_size,
            status.st_mtime_ns,
        ]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return (path, status.st_size) if same else None


def _stamp(status: os.stat_result) -> list[int]:
    """What changes with a file: its time of modification can be set to anything, that of its last change cannot."""
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _hash(data: bytes) -> blake2b:
    return blake2b(data, digest_size=16)
