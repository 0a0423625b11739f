"""Where the lines of a file lie: a scan in big blocks that holds one block and one line at most."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from blendrun.errors import InputInvalidError
from blendrun.jobs.reader import read_at

BLOCK_BYTES = 4 * 1024 * 1024
_BOM = b"\xef\xbb\xbf"


class RawLine(NamedTuple):
    """One line that is not blank.

    number: 1-based within its file, blank lines counted.
    offset, length: bytes, without the newline.
    raw: the bytes, or None where `length` is over the scan's limit (such a line may be blank).
    """

    number: int
    offset: int
    length: int
    raw: bytes | None


def scan_lines(fd: int, size: int, max_line_bytes: int, name: str) -> Iterator[RawLine]:
    """The non-blank lines of a file's first `size` bytes, in order. A UTF-8 BOM before them is skipped.

    A line that crosses a block's end is read again by itself, so blocks need no joining.

    Raises InputInvalidError where the file is shorter than `size`, InputMissingError where it cannot be read.
    """
    number = 0
    position = start = len(_BOM) if read_at(fd, 0, min(size, len(_BOM)), name) == _BOM else 0
    while position < size:
        block = read_at(fd, position, min(BLOCK_BYTES, size - position), name)
        if not block:
            raise InputInvalidError(f"{name} became shorter while it was read; run again when it is complete")
        cut = 0
        while (end := block.find(b"\n", cut)) >= 0:
            number += 1
            length = position + end - start
            if length > max_line_bytes:
                raw = None
            elif start >= position:
                raw = block[cut:end]
            else:
                raw = read_at(fd, start, length, name)
            if raw is None or (raw and not raw.isspace()):
                yield RawLine(number, start, length, raw)
            cut = end + 1
            start = position + cut
        position += len(block)
    if start < size:
        length = size - start
        raw = read_at(fd, start, length, name) if length <= max_line_bytes else None
        if raw is None or not raw.isspace():
            yield RawLine(number + 1, start, length, raw)
