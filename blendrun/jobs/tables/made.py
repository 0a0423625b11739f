"""The lines of a table, as a file of the spool: made once, and again where the table or the options have changed."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from blendrun.errors import InputMissingError, UsageError
from blendrun.jobs.spool import spool_made
from blendrun.jobs.tables.base import Table
from blendrun.jobs.tables.columns import Columns
from blendrun.jobs.tables.kind import find_table
from blendrun.jobs.tables.lines import LineMaker

# Changes where the same rows and options become other lines.
_VERSION = 2


def made_lines(
    path: Path, name: str, place: int, folder: Path, columns: Columns
) -> tuple[Table, Path, int, str] | None:
    """The table that a plain file is, the file of its lines, its bytes, and a sentence on how they were made.

    None where the file holds no rows. name: as the user gave it. place: among the inputs, from 0. folder: the spool.
    Raises InputInvalidError, InputMissingError, OutputUnavailableError, UsageError (options that cannot be kept).
    """
    columns.check()
    try:
        with path.open("rb") as file:
            table = find_table(path, name, columns)
            if table is None:
                _refuse_options(name, columns)
                return None
            if table.requests:
                _refuse_options(name, columns)
            table = replace(table, stamp=stamp(os.fstat(file.fileno())))
            maker = LineMaker(table, columns, place)
            mark = f"{_VERSION} {place} {table.kind} {columns.digest}"
            return table, *spool_made(file, path, mark, maker.lines, maker.said, folder)
    except OSError as error:
        raise InputMissingError(f"cannot read {name}: {error.strerror}; was it moved?") from error


def stamp(status: os.stat_result) -> tuple[int, ...]:
    """What changes with a file."""
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _refuse_options(name: str, columns: Columns) -> None:
    if columns.given:
        if name == "<stdin>":
            raise UsageError(
                f"{columns.given[0]} says how rows become requests, and what came from stdin is not known as rows: "
                "CSV, TSV and text are known by their names, so give a file"
            )
        raise UsageError(
            f"{columns.given[0]} says how rows become requests, and {name} holds requests (or nothing that is known as "
            "rows: .parquet, .csv, .tsv, .txt, JSON with a prompt each); say it in the lines"
        )
