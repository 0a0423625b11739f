"""Lines of the output and of the errors file, and their writing in input order."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import orjson

from blendrun.engine.base import Result
from blendrun.errors import LineError, OutputUnavailableError
from blendrun.jobs import Job
from blendrun.runner.journal import Journal
from blendrun.runner.ledger import ANSWERED, Ledger
from blendrun.runner.state import StateFolder


def answer_line(key: bytes, custom_id: str, result: Result) -> bytes:
    """A line of the output file, exactly OpenAI's (or of the errors file, for a failed result). No newline.

    Ids are made from the work's key, so that they are the same however often a run is resumed.
    """
    response = b"null"
    if result.body:
        head = orjson.dumps({"status_code": result.status_code, "request_id": f"req_{key.hex()}"})
        response = head[:-1] + b',"body":' + result.body + b"}"
    error: object = None
    if result.error_code is not None:
        error = {"code": result.error_code, "message": result.error_message}
    start = orjson.dumps({"id": f"batch_req_{key.hex()}", "custom_id": custom_id})
    return start[:-1] + b',"response":' + response + b',"error":' + orjson.dumps(error) + b"}"


def rejected_line(job: Job, row: int, error: LineError) -> bytes:
    """A line of the errors file for a request that never reached the engine."""
    content = job.content[row].tobytes().hex()
    line = {"id": f"batch_req_{content}", "custom_id": error.custom_id, "response": None}
    return _placed(line | {"error": {"code": str(error.code), "message": error.message}}, job, row)


def _placed(line: dict[str, object], job: Job, row: int) -> bytes:
    """The error with its place in the input: `line`, and `file` where the job has several."""
    name, number = job.where(row)
    error = line["error"]
    assert isinstance(error, dict)
    error["line"] = number
    if len(job.sources) > 1:
        error["file"] = name
    return orjson.dumps(line)


def write_answers(job: Job, ledger: Ledger, journal: Journal, state: StateFolder) -> None:
    """Write output and errors file in input order, each by atomic rename. Every row must be finished.

    Where no line failed there is no errors file; an older one is removed. Raises OutputUnavailableError.
    """
    try:
        with _replacing(state.output) as output, _replacing(state.errors) as errors:
            failed = 0
            for row in range(len(job)):
                if job.rejected[row]:
                    errors.write(rejected_line(job, row, job.error(row)) + b"\n")
                    failed += 1
                    continue
                answer = journal.answer(int(ledger.offset[row]), int(ledger.length[row]))
                if ledger.state[row] == ANSWERED:
                    output.write(answer + b"\n")
                else:
                    errors.write(_placed(orjson.loads(answer), job, row) + b"\n")
                    failed += 1
        if not failed:
            state.errors.unlink()
    except OSError as error:
        raise OutputUnavailableError(
            f"cannot write {state.output}: {error.strerror}. All answers are in {state.path}; the same command "
            "writes them once that is mended"
        ) from error


def check_writable(state: StateFolder) -> None:
    """Refuse now what `write_answers` could not write at the end of a long run. Raises OutputUnavailableError."""
    for path in (state.output, state.errors):
        temporary = _temporary(path)
        try:
            temporary.touch()
            temporary.unlink()
        except OSError as error:
            raise OutputUnavailableError(
                f"cannot write {path}: {error.strerror}; give an output in a folder that can be written, with -o"
            ) from error


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    temporary = _temporary(path)
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
