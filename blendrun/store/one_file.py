"""Answers and failures of a finished run in one file, in input order, as `vllm run-batch` writes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import orjson

from blendrun.jobs.line import MAX_LINE_BYTES
from blendrun.jobs.lines import scan_lines
from blendrun.jobs.reader import SourceReader
from blendrun.jobs.source import open_sources
from blendrun.jobs.spool import LONGEST_WINDOW
from blendrun.jobs.tables.columns import Columns
from blendrun.store.folder import StateFolder

# What every line begins with.
LINE = b'{"id":"batch_req_'
_BAD_REQUEST = 400


def write_one_file(file: BinaryIO, output: Path, source: str, columns: Columns) -> None:
    """Write all lines of the run whose output `output` is, which answered the lines of `source`.

    columns: what they are made of, where that is a table.

    A failure stands where its line stood; it has a `response` with its status and no body, and `error` is an object.
    Raises InputMissingError, OSError.
    """
    state = StateFolder(output)
    failures = _failures(state.errors)
    failed = next(failures, None)
    with output.open("rb") as answers:
        for number in _line_numbers(source, state, columns):
            if failed is not None and failed[0] == number:
                file.write(failed[1])
                failed = next(failures, None)
            else:
                file.write(answers.readline())


def _line_numbers(source: str, state: StateFolder, columns: Columns) -> Iterator[int]:
    """Numbers of the lines that are not blank."""
    sources = open_sources([source], state.spool, LONGEST_WINDOW, columns)
    reader = SourceReader(sources)
    try:
        with reader.descriptor(0) as descriptor:
            for line in scan_lines(descriptor, sources[0].size, MAX_LINE_BYTES, source):
                yield line.number
    finally:
        reader.close()


def _failures(path: Path) -> Iterator[tuple[int, bytes]]:
    """Number of the line of each failure, and the line to write for it."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for text in file:
            line = orjson.loads(text)
            if line["response"] is None:
                request = str(line["id"]).replace("batch_req_", "req_", 1)
                line["response"] = {"status_code": _BAD_REQUEST, "request_id": request, "body": None}
            yield int(line["error"]["line"]), orjson.dumps(line) + b"\n"
