"""Rows that are JSON objects: one a line, or the elements of an array, read piece by piece."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from blendrun.endpoints.json_size import too_many_values
from blendrun.errors import InputInvalidError
from blendrun.jobs.tables.base import BadRow, Read
from blendrun.jobs.tables.text_rows import LONGEST_CELL, PROMPT, whole_lines

_PIECE_BYTES = 1 << 20
# Of an element so long, pieces are a quarter of what is held: little of what is behind it is held with it, and counted.
_LONG = 8 << 20
_BOM = b"\xef\xbb\xbf"
_SPACE = " \t\r\n"


def line_rows(path: Path) -> Iterator[Read]:
    """A row a line. What is blank, no JSON object or a request already goes on as it is."""
    for line in whole_lines(path):
        if isinstance(line, BadRow):
            yield line
            continue
        if too_many_values(line, LONGEST_CELL):
            yield BadRow(f"the line has {len(line):,} bytes with too many values to read")
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError:
            row = None
        yield line.strip(b"\r\n") if not isinstance(row, dict) or is_request(row) else row


def array_rows(path: Path, name: str) -> Iterator[Read]:
    """The elements; a text is a prompt. Raises InputInvalidError where the array is not sound."""
    for element in elements(path, name):
        if isinstance(element, str):
            yield {PROMPT: element}
        elif not isinstance(element, dict):
            yield BadRow("it is neither an object nor a text")
        elif is_request(element):
            yield _line(element)
        else:
            yield element


def is_request(row: dict[str, Any]) -> bool:
    """Whether an object is a request line, or was meant to be one."""
    return not row.keys().isdisjoint(("body", "params", "url", "method"))


def elements(path: Path, name: str) -> Iterator[Any]:
    """Of one array, with memory for one element and a piece. Raises InputInvalidError."""
    decoder = json.JSONDecoder()
    with path.open("rb") as file:
        text = _Text(file)
        if not text.starts("["):
            raise InputInvalidError(f"{name} is no JSON array")
        number = 0
        while not text.starts("]"):
            if number and not text.starts(","):
                raise InputInvalidError(f"{name}: no comma stands behind element {number:,} of its array")
            number += 1
            yield text.value(decoder, f"{name}: element {number:,} of its array")
        if text.next():
            raise InputInvalidError(f"{name}: more stands behind the end of its array; is it several files in one?")


class _Text:
    """Text of a file, of which no more is held than one value needs."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="surrogateescape")
        self._held, self._place, self._ended = "", 0, False

    def next(self) -> str:
        """The next character that is no space, which stays; empty at the end."""
        while True:
            while self._place < len(self._held):
                if (found := self._held[self._place]) not in _SPACE:
                    return found
                self._place += 1
            if not self._more():
                return ""

    def starts(self, mark: str) -> bool:
        """Take `mark` where it is next."""
        found = self.next() == mark
        self._place += found
        return found

    def value(self, decoder: json.JSONDecoder, where: str) -> Any:
        """The next JSON value. Raises InputInvalidError."""
        self.next()
        while True:
            try:
                value, end = decoder.raw_decode(self._held, self._place)
            except (ValueError, RecursionError) as error:
                if len(self._held) - self._place > LONGEST_CELL or not self._more():
                    raise InputInvalidError(f"{where} is not JSON ({error})") from error
                # Once for each piece: of what is held, whichever elements it is of, none can have more.
                if too_many_values(self._held.encode(errors="replace"), LONGEST_CELL):
                    raise InputInvalidError(f"{where} has too many values to read") from error
                continue
            # A number at the end of a piece may go on.
            if end == len(self._held) and self._more():
                continue
            self._place = end
            return value

    def _more(self) -> bool:
        """Read on; False at the end."""
        if self._ended:
            return False
        # Where a value is longer than a piece, pieces grow with it: else it would be tried too often.
        held = len(self._held) - self._place
        data = self._file.read(max(_PIECE_BYTES, held if held < _LONG else held // 4))
        self._ended = not data
        self._held = self._held[self._place :] + self._decoder.decode(data, final=self._ended)
        self._place = 0
        return bool(data)


def _line(element: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(element)
    except TypeError:
        # Numbers beyond 64 bits, NaN, halves of surrogates: the line says so itself.
        return json.dumps(element).encode()
