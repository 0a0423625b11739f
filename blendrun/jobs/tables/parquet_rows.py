"""Rows of a Parquet file, a few megabytes of them at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from blendrun.errors import InputInvalidError, InputMissingError
from blendrun.jobs.tables.arrow import arrow, parquet
from blendrun.jobs.tables.base import BadRow, Row
from blendrun.jobs.tables.row_sizes import row_groups, shared_columns
from blendrun.jobs.tables.text_rows import LONGEST_CELL, first_twice

MAGIC = b"PAR1"
# Of a batch: rows at most, and bytes, unpacked, as the file's own figures tell.
_MOST_ROWS, _BATCH_BYTES = 4096, 4 << 20
# The same where values are shared, if each row had the longest of them: a batch of honest rows has far less.
_MOST_BYTES = 32 << 20
# Of a column, read at once: a row group of pictures may be gigabytes.
_BUFFER_BYTES = 1 << 20


def names_of(path: Path, name: str) -> tuple[str, ...]:
    """The columns. Raises InputInvalidError, InputMissingError, UsageError (no pyarrow)."""
    try:
        names: list[str] = schema_of(path, name).names
    except UnicodeDecodeError as error:
        raise InputInvalidError(f"{name} has a column whose name is not UTF-8") from error
    if (twice := first_twice(names)) is not None:
        raise InputInvalidError(f"{name} has two columns named {twice!r}; name each differently")
    return tuple(names)


def schema_of(path: Path, name: str) -> Any:
    """The file's Arrow schema. Raises as `names_of`."""
    with _opened(path, name) as file:
        return file.schema_arrow


def batches(path: Path, name: str, wanted: Collection[str] = ()) -> Iterator[Any]:
    """Its record batches in order, each of some 8 MiB. wanted: columns; none for all. Raises as `names_of`."""
    lib = arrow(f"reading {name}")
    _read_one_of_each(path, name)
    with _opened(path, name) as file, _opened(path, name, shared_columns(file)) as shared:
        try:
            for groups, rows in row_groups(file, shared, wanted, _rows(file.metadata), _MOST_BYTES):
                yield from file.iter_batches(
                    batch_size=rows, row_groups=groups, columns=sorted(wanted) or None, use_threads=False
                )
        except (lib.ArrowException, OSError) as error:
            raise _unsound(name, error) from error
        finally:
            lib.default_memory_pool().release_unused()


def rows(path: Path, name: str, wanted: Collection[str] = ()) -> Iterator[Row | BadRow]:
    """Its rows, nested ones as lists and dicts. wanted: as for `batches`. Raises as `names_of`."""
    for batch in batches(path, name, wanted):
        yield from _plain(batch)


def _plain(batch: Any) -> list[Row | BadRow]:
    """The rows of a batch; where any holds what Python cannot (text that is no UTF-8, say) it costs itself alone."""
    if batch.num_rows == 1 and batch.nbytes > LONGEST_CELL:
        return [BadRow(f"it has {batch.nbytes:,} bytes, and {LONGEST_CELL:,} is the most")]
    try:
        found: list[Row | BadRow] = batch.to_pylist()
    except ValueError as error:
        if batch.num_rows == 1:
            return [BadRow(f"it cannot be read ({error})")]
        return [row for place in range(batch.num_rows) for row in _plain(batch.slice(place, 1))]
    return found


def _opened(path: Path, name: str, shared: Collection[str] = ()) -> Any:
    """shared: columns to read as dictionaries."""
    lib = arrow(f"reading {name}, a Parquet file,")
    try:
        return parquet(f"reading {name}").ParquetFile(
            path, pre_buffer=False, buffer_size=_BUFFER_BYTES, read_dictionary=list(shared)
        )
    except UnicodeDecodeError as error:
        raise InputInvalidError(f"{name} has a column whose name is not UTF-8") from error
    except (lib.ArrowException, OSError) as error:
        raise _unsound(name, error) from error


def _read_one_of_each(path: Path, name: str) -> None:
    """A row of each row group. What a damaged file says of its columns is checked by this, with an error; asked for
    it by itself, pyarrow (26) ends the process. Raises as `names_of`.
    """
    lib = arrow(f"reading {name}")
    with _opened(path, name) as file:
        paths = [file.schema.column(place).path for place in range(len(file.schema))]
        # As dictionaries, since a row may hold one value many times over.
        with _opened(path, name, paths) as shared:
            try:
                for group in range(file.metadata.num_row_groups):
                    _read_one(shared, file, group, paths)
            except (lib.ArrowException, OSError) as error:
                raise _unsound(name, error) from error


def _read_one(shared: Any, file: Any, group: int, paths: list[str]) -> None:
    """Raises pyarrow's errors, OSError."""
    # Both are what it says of encodings that it does not read so, and the second of much else.
    unread = (arrow("reading Parquet").ArrowNotImplementedError, OSError)
    try:
        next(shared.iter_batches(batch_size=1, row_groups=[group], use_threads=False), None)
    except unread:
        # Each column by itself then, and as it is where it is the one.
        for path in paths:
            try:
                next(shared.iter_batches(batch_size=1, row_groups=[group], columns=[path], use_threads=False), None)
            except unread:
                next(file.iter_batches(batch_size=1, row_groups=[group], columns=[path], use_threads=False), None)


def _rows(metadata: Any) -> int:
    size = sum(int(metadata.row_group(place).total_byte_size) for place in range(metadata.num_row_groups))
    return max(1, min(_MOST_ROWS, _BATCH_BYTES * max(int(metadata.num_rows), 1) // max(size, 1)))


def _unsound(name: str, error: Exception) -> Exception:
    if isinstance(error, OSError) and error.errno is not None:
        return InputMissingError(f"cannot read {name}: {error.strerror or error}")
    return InputInvalidError(
        f"{name} is a Parquet file, and not sound ({' '.join(str(error).split())[:200]}); write it again"
    )
