"""Rows of CSV and TSV files, and of text with a prompt a line."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from blendrun.errors import InputInvalidError
from blendrun.jobs.tables.base import BadRow, Kind, Read

# Of one cell, as of one line.
LONGEST_CELL = 64 * 1024 * 1024
# What the cells of one row may take: their text, and as much for each of them as an object of Python has.
_ROW_BYTES, _CELL_BYTES = 8 * LONGEST_CELL, 64
# A row of less is not looked at.
_SHORT = 1 << 20
# The column of a text file.
PROMPT = "prompt"
_BOM = b"\xef\xbb\xbf"


def csv_names(path: Path, name: str, kind: Kind) -> tuple[str, ...]:
    """The header. Raises InputInvalidError where there is none that can be used."""
    header = next(_cells(path, kind), None)
    if header is None:
        raise InputInvalidError(f"{name} is empty; its first line must name the columns")
    if isinstance(header, BadRow):
        raise InputInvalidError(f"the header of {name} cannot be read: {header.why}")
    if any(not is_utf8(cell) for cell in header):
        raise InputInvalidError(f"the header of {name} is not UTF-8; save the file as UTF-8")
    if (twice := first_twice(header)) is not None:
        raise InputInvalidError(f"{name} has two columns named {twice!r}; name each differently")
    return tuple(header)


def first_twice(names: Sequence[str]) -> str | None:
    """The first name that stands there a second time."""
    seen = set[str]()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def csv_rows(path: Path, kind: Kind, names: tuple[str, ...]) -> Iterator[Read]:
    """Behind the header; empty lines are no rows. Every cell is text, as it stands; bytes that are no UTF-8 are
    surrogates in it.
    """
    cells = _cells(path, kind)
    next(cells, None)
    for row in cells:
        if isinstance(row, BadRow):
            yield row
        elif len(row) != len(names):
            yield BadRow(f"it has {len(row)} cells, the header {len(names)}")
        else:
            yield dict(zip(names, row, strict=True))


def whole_lines(path: Path) -> Iterator[bytes | BadRow]:
    """The lines of a file, in bounded memory, without the mark of order before the first. Raises OSError."""
    with path.open("rb") as file:
        first = True
        while line := file.readline(LONGEST_CELL + 1):
            line = line.removeprefix(_BOM) if first else line
            first = False
            if len(line) > LONGEST_CELL and not line.endswith(b"\n"):
                while (rest := file.readline(LONGEST_CELL)) and not rest.endswith(b"\n"):
                    pass
                yield BadRow(f"the line has more than {LONGEST_CELL:,} bytes")
            else:
                yield line


def text_rows(path: Path) -> Iterator[Read]:
    """A row a line; a blank line stays one."""
    for line in whole_lines(path):
        if isinstance(line, BadRow):
            yield line
        elif line.isspace():
            yield b""
        else:
            yield {PROMPT: line.rstrip(b"\r\n").decode(errors="surrogateescape")}


def is_utf8(text: str) -> bool:
    """Whether it was read from UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _cells(path: Path, kind: Kind) -> Iterator[list[str] | BadRow]:
    # Of the whole process; what is longer than a line may be is a quote that nobody has closed.
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CELL))
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        mark = _delimiter(path, kind)
        lines = _Lines(file, mark)
        reader = csv.reader(lines, delimiter=mark, strict=True)
        while True:
            lines.begin_row()
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield BadRow(f"{_SAID.get(str(error), str(error))}, near line {reader.line_num}")
                continue
            if row:
                yield row


class _Lines:
    """The lines of a file of which none is held that is too long: in its place comes a csv.Error, and then the next.

    The same where a row has too many cells: it may go over any number of lines, as long as a quote is open in each.
    """

    def __init__(self, file: TextIO, mark: str) -> None:
        self._file, self._mark = file, mark
        self._row = 0

    def begin_row(self) -> None:
        self._row = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._file.readline(LONGEST_CELL + 1)
        if not line:
            raise StopIteration
        if len(line) > LONGEST_CELL and not line.endswith(("\n", "\r")):
            while (rest := self._file.readline(LONGEST_CELL)) and not rest.endswith(("\n", "\r")):
                pass
            raise csv.Error(f"the line has more than {LONGEST_CELL:,} characters")
        self._row += len(line)
        if self._row > _SHORT:
            self._row += _CELL_BYTES * line.count(self._mark)
            if self._row > _ROW_BYTES:
                raise csv.Error("the row has too many cells to read")
        return line


_SAID = {"unexpected end of data": "a quote is opened and never closed"}


def _delimiter(path: Path, kind: Kind) -> str:
    """Of a CSV the one in its header: programs of many countries write semicolons."""
    if kind is Kind.TSV:
        return "\t"
    with path.open("rb") as file:
        header = file.readline(1 << 20)
    return next((mark for mark in ",;\t" if mark.encode() in header), ",")
