"""The output as a table: the input's own columns with the answers', in input order, in memory that does not grow."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, BinaryIO, Protocol

import numpy as np
import orjson

from blendrun.endpoints.registry import ENDPOINTS
from blendrun.jobs.job import Job
from blendrun.jobs.tables.arrow import arrow, parquet
from blendrun.jobs.tables.base import Kind, Table
from blendrun.jobs.tables.cells import plain
from blendrun.store.own_files import Digesting
from blendrun.store.tables.cells import Of, UnlikeError, vector
from blendrun.store.tables.chosen import AnswerColumns, answer_columns
from blendrun.store.tables.own import (
    CHUNK_ROWS,
    OwnRows,
    json_types,
    own_names,
    own_tables,
    parquet_chunks,
    parquet_schema,
    row_chunks,
)
from blendrun.store.tables.types import arrow_array, arrow_type, json_text, utf8

# Of a row group: rows and bytes at most, whichever comes first.
_GROUP_ROWS, _GROUP_BYTES = 1 << 16, 32 << 20
_TYPES = {str: "string", int: "int64", float: "float64", bool: "bool_", object: "string", type(None): "string"}

# The output's or errors file's line of a row of the job.
LineOf = Callable[[int], bytes]


class _Writer(Protocol):
    def add(self, own: Any, answers: list[list[Any]]) -> None: ...
    def close(self) -> None: ...
    def abandon(self) -> None: ...


def write_table(file: BinaryIO, kind: Kind, job: Job, line_of: LineOf, schema: dict[str, Any] | None) -> Digesting:
    """Write all rows of a job. schema: that all answers to rows keep.

    Raises InputInvalidError, InputMissingError where a table is not what it was, OSError.
    """
    tables = own_tables(job.sources)
    columns = answer_columns(job, own_names(tables), schema, _vector_size(job, line_of))
    while True:
        digesting = Digesting(file)
        try:
            _write(digesting, kind, tables, columns, job, line_of, schema)
        except UnlikeError as error:
            # Rare, and what was written before is not what it should be.
            columns = replace(columns, shape=error.shape)
            file.seek(0)
            file.truncate()
            continue
        return digesting


def _write(
    file: Digesting,
    kind: Kind,
    tables: Sequence[Table],
    columns: AnswerColumns,
    job: Job,
    line_of: LineOf,
    schema: dict[str, Any] | None,
) -> None:
    writer: _Writer
    own: Iterator[Any]
    if kind is Kind.PARQUET:
        own_schema = _own_schema(tables)
        writer = _ParquetWriter(file, own_schema, columns, schema)
        arrow_rows = bool(tables) and tables[0].kind is Kind.PARQUET
        own = parquet_chunks(tables, own_schema) if arrow_rows else row_chunks(tables)
    else:
        writer = _TextWriter(file, "," if kind is Kind.CSV else "\t", own_names(tables), columns)
        own = row_chunks(tables)
    try:
        _write_rows(writer, own, bool(tables), columns, job, line_of)
    except BaseException:
        writer.abandon()
        raise
    writer.close()


def _write_rows(
    writer: _Writer, own: Iterator[Any], has_own: bool, columns: AnswerColumns, job: Job, line_of: LineOf
) -> None:
    rows = iter(range(len(job)))
    # Of a job of fewer lines than its tables have rows, what is behind them is not read.
    while not has_own and (places := list(islice(rows, CHUNK_ROWS))):
        writer.add(None, [columns.row(line_of(row)) for row in places])
    for chunk in own:
        places = list(islice(rows, len(chunk)))
        if not places:
            break
        writer.add(chunk[: len(places)], [columns.row(line_of(row)) for row in places])


def _vector_size(job: Job, line_of: LineOf) -> int | None:
    """Numbers of the first vector; None where there is none."""
    codes = [code for code, url in enumerate(ENDPOINTS) if url == "/v1/embeddings"]
    for row in job.accepted.tolist():
        if job.endpoint[row] in codes:
            body = (orjson.loads(line_of(row)).get("response") or {}).get("body")
            if body is not None and body.get("data"):
                return len(vector(body["data"][0]["embedding"]))
    return None


def _own_schema(tables: Sequence[Table]) -> Any:
    lib = arrow("writing Parquet")
    if not tables:
        return lib.schema([])
    if tables[0].kind is Kind.PARQUET:
        return parquet_schema(tables)
    if not any(table.kind.json for table in tables):
        return lib.schema([(name, lib.string()) for name in own_names(tables)])
    return lib.schema([(name, getattr(lib, _TYPES[kind])()) for name, kind in json_types(tables).items()])


class _ParquetWriter:
    def __init__(self, file: Digesting, own: Any, columns: AnswerColumns, schema: dict[str, Any] | None) -> None:
        self._lib = arrow("writing Parquet")
        self._own, self._fields = own, columns.fields
        added = [self._lib.field(name, arrow_type(of, columns.shape, schema)) for name, of in self._fields]
        self._schema = self._lib.schema([*own, *added], metadata=own.metadata)
        self._file = _Sequential(file)
        self._writer = parquet("writing Parquet").ParquetWriter(self._file, self._schema, compression="zstd")
        self._held: list[Any] = []
        self._bytes = self._rows = 0

    def add(self, own: Any, answers: list[list[Any]]) -> None:
        arrays = self._own_arrays(own)
        for place, (name, of) in enumerate(self._fields):
            cells = [row[place] for row in answers]
            if of is Of.JSON:
                cells = [json_text(cell) for cell in cells]
            arrays.append(arrow_array(cells, self._schema.field(name).type))
        batch = self._lib.RecordBatch.from_arrays(arrays, schema=self._schema)
        self._held.append(batch)
        self._bytes += batch.nbytes
        self._rows += batch.num_rows
        if self._bytes >= _GROUP_BYTES or self._rows >= _GROUP_ROWS:
            self._flush()

    def _own_arrays(self, own: Any) -> list[Any]:
        if own is None:
            return []
        if isinstance(own, list):
            return [arrow_array([row.get(field.name) for row in own], field.type) for field in self._own]
        return list(own.columns)

    def _flush(self) -> None:
        if self._held:
            self._writer.write_table(self._lib.Table.from_batches(self._held, self._schema))
        self._held, self._bytes, self._rows = [], 0, 0

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def abandon(self) -> None:
        """pyarrow writes the end of the file when its writer goes, whatever has happened."""
        self._file.passes = False


class _TextWriter:
    def __init__(self, file: Digesting, mark: str, own: Sequence[str], columns: AnswerColumns) -> None:
        self._file, self._mark, self._own = file, mark, own
        self._put([[*own, *(name for name, _ in columns.fields)]])

    def add(self, own: OwnRows | None, answers: list[list[Any]]) -> None:
        rows = own or [{} for _ in answers]
        self._put(
            [
                [_cell(cell) for cell in (*(row.get(name) for name in self._own), *answer)]
                for row, answer in zip(rows, answers, strict=True)
            ]
        )

    def _put(self, rows: list[list[Any]]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text, delimiter=self._mark, lineterminator="\n").writerows(rows)
        self._file.write(utf8(text.getvalue()))

    def close(self) -> None:
        """All is written."""

    def abandon(self) -> None:
        """Nothing is held."""


def _cell(cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, bytes):
        return base64.b64encode(cell).decode()
    if isinstance(cell, np.ndarray) or (isinstance(cell, list) and cell and isinstance(cell[0], np.ndarray)):
        # As few digits as tell a number of 32 bits apart.
        return orjson.dumps(cell, option=orjson.OPT_SERIALIZE_NUMPY).decode()
    return plain(cell)


class _Sequential:
    """A file that is only written on, as pyarrow wants one. passes: whether what is written reaches the file."""

    closed = False

    def __init__(self, file: Digesting) -> None:
        self._file, self._place, self.passes = file, 0, True

    def write(self, data: Any) -> int:
        piece = bytes(data)
        if self.passes:
            self._file.write(piece)
        self._place += len(piece)
        return len(piece)

    def tell(self) -> int:
        return self._place

    def flush(self) -> None:
        """Whoever opened the file does it."""

    def close(self) -> None:
        """So is this."""

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False
