"""How many rows of a Parquet file may be read at once: a value that many rows share stands in it once, and is written
out for each of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import groupby
from typing import Any

import numpy as np

from blendrun.jobs.tables.arrow import arrow

# Rows at once of columns that do not tell how long their values are.
_UNKNOWN_ROWS = 64
_BYTES, _FROM_THE_ONE_BEFORE = "BYTE_ARRAY", "DELTA_BYTE_ARRAY"
# Encodings that Arrow reads as dictionaries; of the levels, too.
_AS_DICTIONARY = frozenset(("PLAIN", "PLAIN_DICTIONARY", "RLE_DICTIONARY", "RLE", "BIT_PACKED"))
# Such columns may take so many times the bytes of others, if nearly all that they hold were one value in every row.
_UNLIKELY = 16
# Rows that are looked at together.
_LOOKED_AT_ROWS = 1024


def row_groups(
    file: Any, dictionaries: Any, wanted: Collection[str], rows: int, most: int
) -> list[tuple[list[int], int]]:
    """Row groups that follow each other, and how many of their rows to read at once: `rows`, or fewer where those would
    take more than `most` bytes.

    file, dictionaries: the ParquetFile, as it is and as `shared_columns` says. wanted: columns; none for all. Raises
    pyarrow's errors, OSError.
    """
    found = [
        (_rows(file, dictionaries, wanted, group, rows, most), group) for group in range(file.metadata.num_row_groups)
    ]
    return [([group for _, group in some], count) for count, some in groupby(found, key=lambda each: each[0])]


def shared_columns(file: Any) -> list[str]:
    """Paths of the columns to read as dictionaries, so that each value stands there once, as in the file."""
    # Arrow makes no views of dictionaries.
    if "view" in str(file.schema_arrow):
        return []
    metadata = file.metadata
    groups = [metadata.row_group(place) for place in range(metadata.num_row_groups)]
    columns = (
        (file.schema.column(place), [group.column(place) for group in groups]) for place in range(len(file.schema))
    )
    return [
        column.path
        for column, chunks in columns
        if any(map(_may_share, chunks)) and all(_AS_DICTIONARY.issuperset(chunk.encodings) for chunk in chunks)
    ]


def _rows(file: Any, dictionaries: Any, wanted: Collection[str], group: int, rows: int, most: int) -> int:
    metadata = file.metadata.row_group(group)
    count = max(int(metadata.num_rows), 1)
    # Where its rows are far longer than those of the others.
    rows = max(1, min(rows, most * count // max(int(metadata.total_byte_size), 1)))
    names = [name for field in file.schema_arrow for name in [field.name] * _leaves(field.type)]
    every = [metadata.column(place) for place in range(metadata.num_columns)]
    # Which columns of the file are wanted is not known then, nor which array is of which.
    columns = [each for name, each in zip(names, every, strict=False) if not wanted or name in wanted]
    columns = columns if len(names) == len(every) else every
    sharing = [each for each in columns if _may_share(each)]
    # If all that is in the file of a column were one value, in every row, or in every place of lists.
    if sum(int(each.total_uncompressed_size) * _times(each, rows, count) for each in sharing) <= most:
        return rows
    longest = _longest_of(dictionaries, wanted, group)
    if len(longest) != len(columns):
        longest = [0] * len(columns)
    a_row = 0
    if any(
        _may_share(each)
        and count < each.num_values
        and (length or each.total_uncompressed_size) * each.num_values > most
        for length, each in zip(longest, columns, strict=True)
    ):
        a_row = _longest_row(dictionaries, wanted, group)
        if a_row > _UNLIKELY * most:
            raise arrow("reading Parquet").ArrowInvalid(f"a row of it has up to {a_row:,} bytes")
    looked = a_row > 0
    for length, column in zip(longest, columns, strict=True):
        if _may_share(column):
            # All that is in the file of a column is in its longest value at most; hardly ever it is.
            value = length or int(column.total_uncompressed_size) // _UNLIKELY
            rows = rows if length else min(rows, _UNKNOWN_ROWS)
            a_row += 0 if length and looked else value * -(-int(column.num_values) // count)
    return max(1, min(rows, most // max(a_row, 1)))


def _times(column: Any, rows: int, count: int) -> int:
    """Values of a batch at most."""
    return min(rows, count) if column.num_values <= count else int(column.num_values)


def _longest_of(dictionaries: Any, wanted: Collection[str], group: int) -> list[int]:
    """Bytes of the longest value that rows share, for each column of the file; 0 where that is not told."""
    batches = dictionaries.iter_batches(
        batch_size=_UNKNOWN_ROWS, row_groups=[group], columns=sorted(wanted) or None, use_threads=False
    )
    try:
        first = next(batches, None)
    except arrow("reading Parquet").ArrowNotImplementedError:
        return []
    return [] if first is None else [_longest(each) for column in first.columns for each, _ in _ends(column)]


def _longest_row(dictionaries: Any, wanted: Collection[str], group: int) -> int:
    """Bytes of the longest row: of lists, a row may hold any number of values that stand in the file once. Raises
    pyarrow's errors.
    """
    longest = 0
    for batch in dictionaries.iter_batches(
        batch_size=_LOOKED_AT_ROWS, row_groups=[group], columns=sorted(wanted) or None, use_threads=False
    ):
        sizes = np.zeros(batch.num_rows, np.int64)
        for column in batch.columns:
            for array, counts in _ends(column):
                sizes += _longest(array) * counts
        longest = max(longest, int(sizes.max(initial=0)))
    return longest


def _may_share(column: Any) -> bool:
    shares = column.has_dictionary_page or _FROM_THE_ONE_BEFORE in column.encodings
    return bool(shares) and column.physical_type == _BYTES


def _leaves(kind: Any) -> int:
    """Columns of the file that make one of Arrow's."""
    return sum(_leaves(kind.field(place).type) for place in range(kind.num_fields)) or 1


def _ends(array: Any) -> Iterator[tuple[Any, Any]]:
    """The arrays of those columns, in their order, and how many of its values each row has, i64 (rows,)."""
    types = arrow("reading Parquet").types
    if types.is_struct(array.type):
        for child in array.flatten():
            yield from _ends(child)
    elif types.is_fixed_size_list(array.type):
        size, rows = array.type.list_size, len(array)
        for each, counts in _ends(array.values[array.offset * size : (array.offset + rows) * size]):
            yield each, counts.reshape(rows, size).sum(axis=1)
    elif types.is_map(array.type) or types.is_list(array.type) or types.is_large_list(array.type):
        places = array.offsets.to_numpy()
        for child in (array.keys, array.items) if types.is_map(array.type) else (array.values,):
            for each, counts in _ends(child[places[0] : places[-1]]):
                before = np.concatenate(([0], np.cumsum(counts)))
                yield each, np.diff(before[places - places[0]])
    else:
        yield array, np.ones(len(array), np.int64)


def _longest(array: Any) -> int:
    """Bytes of the longest value of a dictionary; 0 for any other array."""
    lib = arrow("reading Parquet")
    if not lib.types.is_dictionary(array.type):
        return 0
    sizes = (len(value) for value in array.dictionary.cast(lib.binary()).to_pylist() if value is not None)
    return max(sizes, default=0)
