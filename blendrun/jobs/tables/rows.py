"""The rows of a table, of whatever kind, one after the other."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from blendrun.jobs.tables import json_rows, parquet_rows, text_rows
from blendrun.jobs.tables.base import Kind, Read, Table


def read_rows(table: Table, wanted: Collection[str] = ()) -> Iterator[Read]:
    """In order, in memory that does not grow. wanted: columns that are needed, where others may be left out.

    Raises InputInvalidError, InputMissingError, OSError."""
    match table.kind:
        case Kind.PARQUET:
            return parquet_rows.rows(table.path, table.name, wanted)
        case Kind.CSV | Kind.TSV:
            return text_rows.csv_rows(table.path, table.kind, table.names)
        case Kind.TEXT:
            return text_rows.text_rows(table.path)
        case Kind.ARRAY:
            return json_rows.array_rows(table.path, table.name)
        case Kind.ROWS:
            return json_rows.line_rows(table.path)
