"""A file that is being fetched: what is there of it, and of which version. It outlives the process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import msgspec

from blendrun.files import PRIVATE, replacing


class Version(msgspec.Struct, frozen=True):
    """What tells whether it is still the same. tag: an ETag or what a store has for one; date: Last-Modified, as the
    server writes them, "" for unknown. size: bytes; None for unknown.
    """

    tag: str = ""
    date: str = ""
    size: int | None = None

    @property
    def strong(self) -> bool:
        """Whether two of that tag are the same, byte for byte."""
        return bool(self.tag) and not self.tag.startswith("W/")


class Note(msgspec.Struct, frozen=True):
    """What lies beside a file that was fetched, or a part of one. whole: which of the two."""

    version: Version
    whole: bool


class Part:
    """The part at `path`, whose note is at `note`. grown: told its size now and then, and of the whole."""

    def __init__(self, path: Path, note: Path, grown: Callable[[int, int], None] = lambda done, total: None) -> None:
        self._path, self._note, self._grown = path, note, grown
        kept = read_note(note)
        self.version = None if kept is None or kept.whole else kept.version
        self.size = _size(path) if self.version is not None else 0
        if self.version is not None and self.size > (self.version.size or self.size):
            self.version, self.size = None, 0

    def restart(self, version: Version | None) -> None:
        """Forget what is there; what comes is of this version, which is noted before its first byte. Raises OSError."""
        with open(self._path, "wb", opener=_private):
            pass
        self.size, self.version = 0, version
        if version is not None:
            write_note(self._note, Note(version, whole=False))

    @contextmanager
    def opened(self, offset: int) -> Iterator[BinaryIO]:
        """The file, to be written from there on. Raises OSError."""
        with open(self._path, "r+b", opener=_private) as file:
            file.truncate(offset)
            file.seek(offset)
            try:
                yield _Growing(file, self)  # type: ignore[misc]
            finally:
                file.flush()
                os.fsync(file.fileno())

    @property
    def whole(self) -> bool:
        """Whether all is there, as far as its version says."""
        return self.version is not None and self.version.size == self.size

    def finish(self, target: Path) -> None:
        """It is whole: give it its name. A kill in between leaves a copy without a note: fetched again. OSError."""
        self._path.replace(target)
        write_note(self._note, Note(self.version or Version(), whole=True))
        self.version, self.size = None, 0

    def grew(self, count: int) -> None:
        """So many bytes more were written."""
        self.size += count
        self._grown(self.size, (self.version.size if self.version else None) or 0)


class _Growing:
    """A file that tells its part what it has got."""

    def __init__(self, file: BinaryIO, part: Part) -> None:
        self._file, self._part = file, part

    def write(self, data: bytes) -> int:
        self._file.write(data)
        self._part.grew(len(data))
        return len(data)


def read_note(path: Path) -> Note | None:
    """None where there is none that can be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Note)
    except (OSError, msgspec.DecodeError):
        return None


def write_note(path: Path, note: Note) -> None:
    """Raises OSError."""
    with replacing(path, PRIVATE) as file:
        file.write(msgspec.json.encode(note) + b"\n")


def _size(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_size
    return 0


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE)
