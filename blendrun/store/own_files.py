"""The files that a run has written under its output's names: these it may replace, and nothing else unasked."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import msgspec

from blendrun.errors import OutputUnavailableError, unwritable
from blendrun.files import written_through
from blendrun.store.folder import StateFolder, path_text

OUTPUT, ERRORS = "output", "errors"
_PIECE_BYTES = 1 << 20


class WrittenFile(msgspec.Struct, frozen=True):
    """A file that a run wrote. name: output or errors; size: bytes; digest: BLAKE2b of its content, hex."""

    name: str
    size: int
    digest: str


class Digest:
    """What is known of a content once all of it was seen."""

    def __init__(self) -> None:
        self._digest, self._size = hashlib.blake2b(digest_size=16), 0

    def add(self, data: bytes) -> None:
        self._digest.update(data)
        self._size += len(data)

    def record(self, name: str) -> WrittenFile:
        """Of what was added by now."""
        return WrittenFile(name, self._size, self._digest.hexdigest())


class Digesting:
    """A file that is being written, and the record of what was."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._digest = file, Digest()

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.add(data)

    def record(self, name: str) -> WrittenFile:
        """What it holds by now."""
        return self._digest.record(name)

    def begins_like(self, path: Path) -> bool:
        """Whether the file at `path` is the beginning of this one: it is the same, or was cut. Raises OSError."""
        self._file.flush()
        place, ours = 0, self._file.fileno()
        with path.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                if os.pread(ours, len(piece), place) != piece:
                    return False
                place += len(piece)
        return True


@dataclass(slots=True)
class OwnFiles:
    """What the run knows of its files.

    records: of what was written, by the manifest, the newest last. keep: puts them there. overwrite: what others made
    may be replaced. kept: a sentence on where the answers are; "" for the state folder.
    """

    state: StateFolder
    records: tuple[WrittenFile, ...]
    keep: Callable[[tuple[WrittenFile, ...]], None]
    overwrite: bool = False
    kept: str = ""
    _names: dict[str, Path] = field(init=False)

    def __post_init__(self) -> None:
        self._names = {OUTPUT: self.state.output, ERRORS: self.state.errors}

    def whole(self, *, failed: bool) -> bool:
        """Whether the files are there as they were last written. failed: whether there is an errors file."""
        return all(self._is_newest(name) for name in ((OUTPUT, ERRORS) if failed else (OUTPUT,)))

    def check(self, *, trusted: bool) -> None:
        """Before any work: refuse what could not be replaced at its end.

        trusted: an earlier version wrote these files, and kept no record. Raises OutputUnavailableError.
        """
        for name, path in self._names.items():
            if trusted and not self.records and path.is_file():
                self.records += (record_of(name, path),)
        for name in self._names:
            self._check(name, None)

    def replace(self, new: dict[str, Digesting]) -> None:
        """Called with the new files just before they get their names, which the manifest knows first.

        Raises OutputUnavailableError where a file is there that is neither the run's nor a part of the new one.
        """
        for name, file in new.items():
            self._check(name, file)
        # If a kill comes in between, the old files are still the run's own.
        self.records = tuple(each for each in self.records if self._matches(each))
        added = (file.record(name) for name, file in new.items())
        self.records += tuple(each for each in added if each not in self.records)
        self.keep(self.records)

    def _check(self, name: str, new: Digesting | None) -> None:
        path = self._names[name]
        try:
            written_through(path)
            if self.overwrite or not path.exists() or not path.stat().st_size:
                return
            if any(self._matches(each) for each in self.records if each.name == name):
                return
            if new is not None and new.begins_like(path):
                return
        except OSError as error:
            raise unwritable(path_text(path), error, "the same command writes it") from error
        raise OutputUnavailableError(
            f"{path_text(path)} is not what this run wrote there; move it away, or give --overwrite to replace it. "
            f"{self.kept or f'All answers so far are in {path_text(self.state.path)}'}"
        )

    def _is_newest(self, name: str) -> bool:
        newest = next((each for each in reversed(self.records) if each.name == name), None)
        return newest is not None and self._matches(newest)

    def _matches(self, record: WrittenFile) -> bool:
        path = self._names[record.name]
        try:
            return path.stat().st_size == record.size and record_of(record.name, path) == record
        except OSError:
            return False


def record_of(name: str, path: Path) -> WrittenFile:
    """The record of a file as it is. Raises OSError."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))
        return WrittenFile(name, file.tell(), digest.hexdigest())
