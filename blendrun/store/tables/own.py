"""The input's own columns, read once more beside the answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from blendrun.errors import InputInvalidError, InputMissingError, UsageError
from blendrun.jobs.source import Source
from blendrun.jobs.tables import parquet_rows
from blendrun.jobs.tables.arrow import arrow
from blendrun.jobs.tables.base import Kind, Table
from blendrun.jobs.tables.made import stamp
from blendrun.jobs.tables.rows import read_rows
from blendrun.store.tables.kind import table_kind

# Rows that are held.
CHUNK_ROWS = 1024
OwnRows = list[dict[str, Any]]


def own_tables(sources: Sequence[Source]) -> tuple[Table, ...]:
    """The tables whose columns the output has; none where any input holds lines."""
    tables = [source.table for source in sources if source.table is not None and not source.table.requests]
    return tuple(tables) if len(tables) == len(sources) else ()


def check_own(output: Path, sources: Sequence[Source]) -> None:
    """Refuse now what could not stand in one table at the end. Raises UsageError, InputInvalidError."""
    tables = own_tables(sources)
    if table_kind(output) is None or not tables:
        return
    kinds = {table.kind is Kind.PARQUET for table in tables}
    if len(kinds) > 1:
        raise UsageError(f"-o {output}: Parquet and other tables have no columns in common; give a name with .jsonl")
    for table in tables if kinds == {True} else ():
        # Columns that no prompt needs were not read yet; a damaged one would cost the table at the end.
        for _ in parquet_rows.batches(table.path, table.name):
            pass
    if kinds == {True}:
        parquet_schema(tables)


def own_names(tables: Sequence[Table]) -> tuple[str, ...]:
    """All columns, in the order in which they come."""
    if tables and tables[0].kind.json:
        return tuple(json_types(tables))
    return tuple(dict.fromkeys(name for table in tables for name in table.names))


def parquet_schema(tables: Sequence[Table]) -> Any:
    """The Arrow schema of all their columns. Raises UsageError where they do not go together."""
    lib = arrow("reading Parquet")
    schemas = [parquet_rows.schema_of(table.path, table.name) for table in tables]
    try:
        return lib.unify_schemas(schemas, promote_options="permissive").with_metadata(schemas[0].metadata)
    except lib.ArrowException as error:
        raise UsageError(
            f"the columns of {tables[0].name} and the others do not go into one table ({error}); give -o a name with "
            ".jsonl"
        ) from error


def parquet_chunks(tables: Sequence[Table], schema: Any) -> Iterator[Any]:
    """Record batches in the order of the job's rows, of `schema`. Raises InputInvalidError where a table changed."""
    lib = arrow("reading Parquet")
    for table in tables:
        _refuse_changed(table)
        for batch in parquet_rows.batches(table.path, table.name):
            arrays = [
                batch.column(batch.schema.get_field_index(field.name)).cast(field.type)
                if field.name in batch.schema.names
                else lib.nulls(batch.num_rows, field.type)
                for field in schema
            ]
            whole = lib.RecordBatch.from_arrays(arrays, schema=schema)
            for start in range(0, batch.num_rows, CHUNK_ROWS):
                yield whole.slice(start, CHUNK_ROWS)


def row_chunks(tables: Sequence[Table]) -> Iterator[OwnRows]:
    """Rows in the order of the job's, of any kind of table; one that cannot be read is empty. Raises the same."""
    rows = _rows(tables)
    while chunk := list(islice(rows, CHUNK_ROWS)):
        yield chunk


def json_types(tables: Sequence[Table]) -> dict[str, type]:
    """Names of columns, and of which type all their cells are; `object` where they are unlike, or nested."""
    found: dict[str, type] = {}
    for row in _rows(tables):
        for name, cell in row.items():
            if cell is None:
                found.setdefault(name, type(None))
                continue
            new, old = _type(cell), found.get(name, type(None))
            if old is type(None):
                found[name] = new
            elif new is not old:
                found[name] = float if {old, new} == {int, float} else object
    return found


def _type(cell: Any) -> type:
    kind = type(cell)
    # Beyond 64 bits a number stands as text.
    if kind is int and not -(2**63) <= cell < 2**63:
        return object
    return kind if kind in (str, int, float, bool) else object


def _rows(tables: Sequence[Table]) -> Iterator[dict[str, Any]]:
    for table in tables:
        _refuse_changed(table)
        for row in read_rows(table):
            if isinstance(row, dict):
                yield row
            elif not isinstance(row, bytes) or row.strip():
                yield {}


def _refuse_changed(table: Table) -> None:
    how = "the answers are in the journal: `blendrun answers` prints them"
    try:
        now = stamp(table.path.stat())
    except OSError as error:
        raise InputMissingError(f"cannot read {table.name} again ({error.strerror}); {how}") from error
    if now != table.stamp:
        raise InputInvalidError(f"{table.name} changed while the job was running; {how}")
