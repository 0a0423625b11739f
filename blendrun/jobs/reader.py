"""Reads of a job's sources by offset."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

from blendrun.errors import BlendrunError, InputMissingError
from blendrun.jobs.source import Source, what_it_means

PIECE_BYTES = 4 * 1024 * 1024
# Descriptors held; sources beyond are opened for each read (a process may often have 1,024).
_MAX_HELD = 256


class SourceReader:
    """Random access to sources, safe from many threads.

    The descriptors are held, so that a file that is replaced by rename goes on being read as it was.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        """Raises InputMissingError where a source is no longer there, as all that reads does; of a copy in the state
        folder that is an OutputUnavailableError.
        """
        self._sources = tuple(sources)
        self._held: list[BinaryIO] = []
        try:
            for source in self._sources[:_MAX_HELD]:
                self._held.append(_open(source))
        except BlendrunError:
            self.close()
            raise

    @contextmanager
    def descriptor(self, place: int) -> Iterator[int]:
        """An open descriptor of source number `place`."""
        try:
            if place < len(self._held):
                yield self._held[place].fileno()
            else:
                with _open(self._sources[place]) as file:
                    yield file.fileno()
        except InputMissingError as error:
            raise what_it_means(self._sources[place], error) from error

    def read(self, place: int, offset: int, length: int) -> bytes:
        """Up to `length` bytes of source `place`, fewer only where it ends. Raises InputMissingError."""
        with self.descriptor(place) as fd:
            return read_at(fd, offset, length, self._sources[place].name)

    def pieces(self, place: int, offset: int, length: int) -> Iterator[bytes]:
        """The same bytes, PIECE_BYTES at a time, for lines too long to hold. Raises InputMissingError."""
        end = offset + length
        while offset < end and (piece := self.read(place, offset, min(PIECE_BYTES, end - offset))):
            yield piece
            offset += len(piece)

    def close(self) -> None:
        """Give the descriptors back. Later reads open the files anew."""
        held, self._held = self._held, []
        for file in held:
            file.close()


def read_at(fd: int, offset: int, length: int, name: str) -> bytes:
    """`length` bytes from `offset`, fewer only where the file ends. Raises InputMissingError."""
    try:
        data = os.pread(fd, length, offset)
        # One call gives at most 2 GiB, and network file systems may give less.
        while len(data) < length and (more := os.pread(fd, length - len(data), offset + len(data))):
            data += more
    except OSError as error:
        raise InputMissingError(f"cannot read {name}: {error.strerror}") from error
    return data


def _open(source: Source) -> BinaryIO:
    try:
        return source.path.open("rb", buffering=0)
    except OSError as error:
        missing = InputMissingError(f"cannot read {source.name}: {error.strerror}; was it moved?")
        raise what_it_means(source, missing) from error
