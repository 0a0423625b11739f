"""The output as a table: the input's own columns with the answers', in input order, in memory that does not grow."""

from __future__ import annotations

import base64
import csv
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
from blendrun.store.tables.cells import Of, UnlikeError
from blendrun.store.tables.chosen import EMBEDDINGS, AnswerColumns, columns_of_job, columns_of_lines, vector_size
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
_GROUP_ROWS, _GROUP_BYTES = 1 << 15, 16 << 20
# Of lines whose cells are held.
_HELD_BYTES = 16 << 20
_TYPES = {str: "string", int: "int64", float: "float64", bool: "bool_", object: "string", type(None): "string"}

# The output's or errors file's line of a row of the job.
LineOf = Callable[[int], bytes]
# All lines, from the first one on, as often as it is called.
Lines = Callable[[], Iterator[bytes]]


class _Writer(Protocol):
    def add(self, own: Any, answers: list[list[Any]]) -> None: ...
    def close(self) -> None: ...
    def abandon(self) -> None: ...


def write_table(file: BinaryIO, kind: Kind, job: Job, line_of: LineOf, schema: dict[str, Any] | None) -> Digesting:
    """Write all rows of a job. schema: that all answers to rows keep.

    Raises InputInvalidError, InputMissingError where a table is not what it was, OSError.
    """
    tables = own_tables(job.sources)
    codes = [code for code, url in enumerate(ENDPOINTS) if url == EMBEDDINGS]
    vectors = (line_of(row) for row in job.accepted.tolist() if job.endpoint[row] in codes)
    columns = columns_of_job(job, own_names(tables), schema, vector_size(vectors))
    return _write(file, kind, tables, columns, lambda: map(line_of, range(len(job))), schema)


def write_lines(file: BinaryIO, kind: Kind, lines: Lines) -> None:
    """Write the answers of a file of them, which no table is beside. Raises InputInvalidError, OSError."""
    _write(file, kind, (), columns_of_lines(lines()), lines, None)


def _write(
    file: BinaryIO,
    kind: Kind,
    tables: Sequence[Table],
    columns: AnswerColumns,
    lines: Lines,
    schema: dict[str, Any] | None,
) -> Digesting:
    while True:
        digesting = Digesting(file)
        writer, own = _opened(digesting, kind, tables, columns, schema)
        try:
            _write_rows(writer, own, columns, lines())
            writer.close()
        except UnlikeError as error:
            writer.abandon()
            # Rare, and what was written before is not what it should be.
            columns = replace(columns, shape=error.shape)
            file.seek(0)
            file.truncate()
            continue
        except BaseException:
            writer.abandon()
            raise
        return digesting


def _opened(
    file: Digesting, kind: Kind, tables: Sequence[Table], columns: AnswerColumns, schema: dict[str, Any] | None
) -> tuple[_Writer, Iterator[Any] | None]:
    """What writes, and the rows' own columns in pieces."""
    if kind is not Kind.PARQUET:
        mark = "," if kind is Kind.CSV else "\t"
        return _TextWriter(file, mark, own_names(tables), columns), row_chunks(tables) if tables else None
    own = _own_schema(tables)
    writer = _ParquetWriter(file, own, columns, schema)
    if not tables:
        return writer, None
    return writer, parquet_chunks(tables, own) if tables[0].kind is Kind.PARQUET else row_chunks(tables)


def _write_rows(writer: _Writer, own: Iterator[Any] | None, columns: AnswerColumns, lines: Iterator[bytes]) -> None:
    if own is None:
        while answers := _next(columns, lines, CHUNK_ROWS):
            writer.add(None, answers)
        return
    for chunk in own:
        done = 0
        while done < len(chunk):
            answers = _next(columns, lines, len(chunk) - done)
            # Of a job of fewer lines than its tables have rows, what is behind them is not read.
            if not answers:
                return
            writer.add(chunk[done : done + len(answers)], answers)
            done += len(answers)


def _next(columns: AnswerColumns, lines: Iterator[bytes], most: int) -> list[list[Any]]:
    """Cells of the next lines: fewer than `most` where these are long."""
    found: list[list[Any]] = []
    size = 0
    for line in islice(lines, most):
        found.append(columns.row(line))
        size += len(line)
        if size >= _HELD_BYTES:
            break
    return found


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
        lines = _Lines()
        csv.writer(lines, delimiter=self._mark, lineterminator=_Lines.END).writerows(rows)
        self._file.write(utf8("".join(lines.texts)))

    def close(self) -> None:
        """All is written."""

    def abandon(self) -> None:
        """Nothing is held."""


class _Lines:
    """Takes rows as csv writes them, and ends each in a newline alone.

    csv quotes what has a character of its line's end in it (before Python 3.13, no other), and a lone carriage return
    ends a row to most who read one.
    """

    END = "\r\n"

    def __init__(self) -> None:
        self.texts: list[str] = []

    def write(self, text: str) -> None:
        self.texts.append(f"{text.removesuffix(self.END)}\n")


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
