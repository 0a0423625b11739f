"""How many rows of a Parquet file may be read at once: a value that many rows share stands in it once, and is written
out for each of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import groupby
from typing import Any

from blendrun.jobs.tables.arrow import arrow

# Rows at once of columns that do not tell how long their values are.
_UNKNOWN_ROWS = 64
# Of a batch, that need no closer look.
_SMALL_BYTES = 32 << 20
_BYTES, _FROM_THE_ONE_BEFORE = "BYTE_ARRAY", "DELTA_BYTE_ARRAY"


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
    columns = (file.schema.column(place) for place in range(len(file.schema)))
    return [each.path for each in columns if each.physical_type == _BYTES]


def _rows(file: Any, dictionaries: Any, wanted: Collection[str], group: int, rows: int, most: int) -> int:
    metadata = file.metadata.row_group(group)
    count = max(int(metadata.num_rows), 1)
    names = [name for field in file.schema_arrow for name in [field.name] * _leaves(field.type)]
    every = [metadata.column(place) for place in range(metadata.num_columns)]
    if len(names) != len(every):
        return min(rows, _UNKNOWN_ROWS)
    columns = [each for name, each in zip(names, every, strict=True) if not wanted or name in wanted]
    sharing = [each for each in columns if _may_share(each)]
    if min(rows, count) * sum(int(each.total_uncompressed_size) for each in sharing) <= _SMALL_BYTES:
        return rows
    batches = dictionaries.iter_batches(
        batch_size=_UNKNOWN_ROWS, row_groups=[group], columns=sorted(wanted) or None, use_threads=False
    )
    first = next(batches, None)
    longest = [] if first is None else [_longest(each) for column in first.columns for each in _ends(column)]
    a_row = 0
    for length, column in zip(longest, columns, strict=False):
        if _may_share(column):
            known = length > 0 and _FROM_THE_ONE_BEFORE not in column.encodings
            rows = rows if known else min(rows, _UNKNOWN_ROWS)
            a_row += length * -(-int(column.num_values) // count)
    return max(1, min(rows, most // max(a_row, 1)))


def _may_share(column: Any) -> bool:
    shares = column.has_dictionary_page or _FROM_THE_ONE_BEFORE in column.encodings
    return bool(shares) and column.physical_type == _BYTES


def _leaves(kind: Any) -> int:
    """Columns of the file that make one of Arrow's."""
    return sum(_leaves(kind.field(place).type) for place in range(kind.num_fields)) or 1


def _ends(array: Any) -> Iterator[Any]:
    """The arrays of those columns, in their order."""
    types = arrow("reading Parquet").types
    if types.is_struct(array.type):
        for child in array.flatten():
            yield from _ends(child)
    elif types.is_map(array.type):
        yield from _ends(array.keys)
        yield from _ends(array.items)
    elif types.is_nested(array.type) and hasattr(array, "flatten"):
        yield from _ends(array.flatten())
    else:
        yield array


def _longest(array: Any) -> int:
    """Bytes of the longest value of a dictionary; 0 for any other array."""
    lib = arrow("reading Parquet")
    if not lib.types.is_dictionary(array.type):
        return 0
    sizes = (len(value) for value in array.dictionary.cast(lib.binary()).to_pylist() if value is not None)
    return max(sizes, default=0)
