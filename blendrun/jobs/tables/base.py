"""What a table is: a file of rows, and what reading one gives."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any


class Kind(StrEnum):
    """What holds the rows. ARRAY: one JSON array; ROWS: JSON objects, one a line, that are no requests yet."""

    PARQUET = "Parquet"
    CSV = "CSV"
    TSV = "TSV"
    TEXT = "text"
    ARRAY = "JSON array"
    ROWS = "JSON lines"

    @property
    def json(self) -> bool:
        """Whether a row is a JSON object: it may have fields of a request, and rows need not be alike."""
        return self in (Kind.ARRAY, Kind.ROWS)


# The field of a line that stands for a row which cannot become a request; `jobs.line` makes its error of it.
BAD_ROW = "bad_row"
# In the place of columns, of an array of request lines.
REQUESTS = ("body",)


@dataclass(frozen=True, slots=True)
class Table:
    """A file of rows. name: as the user gave it, for messages. names: of its columns; of JSON, those of its beginning.

    stamp: what changes with the file, as it was when its rows became lines.
    """

    path: Path
    name: str
    kind: Kind
    names: tuple[str, ...]
    stamp: tuple[int, ...] = ()

    @property
    def requests(self) -> bool:
        """Whether its rows are request lines already, as elements of an array."""
        return self.kind is Kind.ARRAY and self.names == REQUESTS


Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be read. why: a clause."""

    why: str


# A row; one that cannot be read; or a line that goes on as it is: blank, no JSON object, a request already.
Read = Row | BadRow | bytes


class RowError(Exception):
    """A row that cannot become a request; it costs no other row its answer. The message is a clause."""
