"""The answers of a run as they come, read from its journal by another process, which writes and locks nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from blendrun.errors import InputMissingError
from blendrun.store.journal import CRC_BYTES, LONGEST_RECORD, parse_record
from blendrun.store.ledger import CUT


@dataclass(slots=True)
class JournalTail:
    """Gives each answer of a journal once, in the order in which requests finished; a record only when it is whole.

    errors: also give the lines of requests that failed. Such a request may be answered later, when the run is told to
    retry it: its line comes then, too. cut_short: only give answers that ended at their token limit.
    """

    path: Path
    errors: bool = False
    cut_short: bool = False
    # Behind the last whole line that was read, and that line's checksum with its place.
    _place: int = 0
    _last: bytes = b""
    _last_place: int = 0
    # Answers given, and the key of the first. seen: of the file that is there now. skip: of these, given before.
    _given: int = 0
    _first: bytes = b""
    _seen: int = 0
    _skip: int = 0

    def new(self) -> Iterator[bytes]:
        """Lines (no newline) that came since the last call; none while there is no journal.

        Raises InputMissingError where it cannot be read.
        """
        try:
            # Opened anew each time: no buffer holds what a resumed run has cut off.
            with self.path.open("rb") as file:
                if not self._goes_on(file):
                    self._begin_again()
                yield from self._read(file)
        except FileNotFoundError:
            return
        except OSError as error:
            raise InputMissingError(f"cannot read {self.path}: {error.strerror}") from error

    def _read(self, file: BinaryIO) -> Iterator[bytes]:
        file.seek(self._place)
        # A line without its end is being written, or is the last word of a killed run, which the next one cuts off.
        while (line := file.readline(LONGEST_RECORD)).endswith(b"\n") or len(line) == LONGEST_RECORD:
            self._last, self._last_place = line[:CRC_BYTES], self._place
            self._place += len(line)
            if (answer := self._answer(line)) is not None:
                yield answer

    def _answer(self, line: bytes) -> bytes | None:
        """What to give of a line of the journal: nothing of its header, of damage, and of what was given before."""
        entry = parse_record(line, 0)
        if entry is None:
            return None
        if not entry.ok:
            return line[entry.offset : -1] if self.errors and self._seen >= self._skip else None
        if self._seen == 0 and entry.key != self._first:
            # The journal of another run, from its beginning.
            self._first, self._given, self._skip = entry.key, 0, 0
        self._seen += 1
        if self._seen <= self._skip:
            return None
        self._given += 1
        return line[entry.offset : -1] if not self.cut_short or CUT in entry.finish_reasons else None

    def _goes_on(self, file: BinaryIO) -> bool:
        """Whether the file is the one that was read before, as far as that was read."""
        file.seek(self._last_place)
        return file.read(len(self._last)) == self._last

    def _begin_again(self) -> None:
        """Read the file that is there now. Where failed requests are retried it begins with the answers given before,
        in the same order."""
        self._place, self._last, self._last_place, self._seen, self._skip = 0, b"", 0, 0, self._given
