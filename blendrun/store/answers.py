"""Lines of the output and of the errors file, and their writing in input order."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import orjson

from blendrun.endpoints.apis.anthropic import failed as anthropic_error
from blendrun.engine.base import Result
from blendrun.errors import LineError, OutputUnavailableError, unwritable
from blendrun.files import file_mode, probe, remove_written, replacing
from blendrun.jobs.job import Job
from blendrun.store.folder import StateFolder
from blendrun.store.ids import line_id
from blendrun.store.journal import COPY, Journal
from blendrun.store.ledger import ANSWERED, FAILED, Ledger
from blendrun.store.own_files import ERRORS, OUTPUT, Digesting, OwnFiles
from blendrun.store.tables.kind import table_kind
from blendrun.store.tables.write import write_table
from blendrun.tokens.check import RefusedPrompts

# What every line of ours begins and ends with.
_HEAD, _TAIL = b'{"id":"batch_req_', b"}"
_BAD_REQUEST = 400
# Where the part of a line begins that is the same for equal requests.
_ANSWER = re.compile(rb',"(?:response|result)":')


def is_line(ok: bool, answer: bytes) -> bool:
    """Whether a record's answer is a line that `answer_line` may have made. ok: of the output, not of the errors file.

    Of an answer its ends are looked at only: there may be gigabytes of them.
    """
    if not (answer.startswith(_HEAD) and answer.endswith(_TAIL)):
        return False
    if ok:
        return True
    try:
        error = orjson.loads(answer).get("error")
    except orjson.JSONDecodeError:
        return False
    return isinstance(error, dict) and isinstance(error.get("code"), str) and isinstance(error.get("message"), str)


def answer_line(
    key: bytes, custom_id: str, result: Result, *, results: bool = False, taken: str | None = None
) -> bytes:
    """A line of the output file, exactly OpenAI's (or of the errors file, for a failed result). No newline.

    Ids are made from the work's key, so that they are the same however often a run is resumed.
    results: whether it is exactly Anthropic's instead; the line of a failure has its error both ways then.
    taken: see `journal.Record`; the id says it.
    """
    start = _start(key, custom_id, taken)
    if results and result.error_code is None:
        return start + b',"result":{"type":"succeeded","message":' + result.body + b"}}"
    if results:
        start += b"," + orjson.dumps(_errored(result.status_code, result.error_message))[1:-1]
    response = b"null"
    if result.body:
        head = orjson.dumps({"status_code": result.status_code, "request_id": f"req_{key.hex()}"})
        response = head[:-1] + b',"body":' + result.body + b"}"
    error: object = None
    if result.error_code is not None:
        error = {"code": result.error_code, "message": result.error_message}
    return start + b',"response":' + response + b',"error":' + orjson.dumps(error) + b"}"


def copied_line(key: bytes, custom_id: str, line: bytes) -> bytes:
    """The line of a request that asks the same as the one whose line is given; its `request_id` names that one."""
    # Within a text a quote has a backslash before it, so this is not in the `custom_id`.
    found = _ANSWER.search(line)
    assert found is not None, "a line of ours"
    return _start(key, custom_id, COPY) + line[found.start() :]


def _start(key: bytes, custom_id: str, taken: str | None) -> bytes:
    """What a line begins with. taken: see `journal.Record`."""
    return orjson.dumps({"id": line_id(key, taken), "custom_id": custom_id})[:-1]


def _errored(status: int, message: str) -> dict[str, object]:
    """A failure as the lines of Anthropic's batches have it."""
    return {"result": {"type": "errored", "error": anthropic_error(status, message)}}


def rejected_line(job: Job, row: int, error: LineError) -> bytes:
    """A line of the errors file for a request that never reached the engine."""
    content = job.content[row].tobytes().hex()
    line: dict[str, object] = {"id": f"batch_req_{content}", "custom_id": error.custom_id}
    line |= _errored(_BAD_REQUEST, error.message) if error.results else {}
    line["response"] = None
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


def write_errors(
    job: Job,
    ledger: Ledger,
    journal: Journal,
    state: StateFolder,
    files: OwnFiles,
    refused: RefusedPrompts | None = None,
) -> None:
    """Write the errors file alone, of a run that ends before its time: what has failed so far, in input order.

    refused: found by checking, where that was done. Raises OutputUnavailableError.
    """
    found = frozenset(refused.rows.tolist() if refused else ())
    failed = job.rejected | (ledger.state == FAILED)
    failed[list(found)] = True
    rows = np.flatnonzero(failed)
    try:
        with replacing(state.errors, file_mode(state.errors), state.parts) as file:
            errors = Digesting(file)
            for row in rows.tolist():
                if refused is not None and row in found:
                    errors.write(rejected_line(job, row, refused.error(row)) + b"\n")
                else:
                    errors.write(_error_line(job, ledger, journal, row) + b"\n")
            files.replace({ERRORS: errors})
    except OSError as error:
        raise unwritable(state.errors, error, "the same command lists the lines that failed") from error


def _line(job: Job, ledger: Ledger, journal: Journal, row: int) -> bytes:
    """The line of a finished row, of the output or of the errors file."""
    if ledger.state[row] != ANSWERED:
        return _error_line(job, ledger, journal, row)
    return journal.answer(int(ledger.offset[row]), int(ledger.length[row]))


def _error_line(job: Job, ledger: Ledger, journal: Journal, row: int) -> bytes:
    """The errors file's line of a row that is rejected or failed."""
    if job.rejected[row]:
        return rejected_line(job, row, job.error(row))
    return _placed(orjson.loads(journal.answer(int(ledger.offset[row]), int(ledger.length[row]))), job, row)


def write_answers(
    job: Job,
    ledger: Ledger,
    journal: Journal,
    state: StateFolder,
    files: OwnFiles,
    schema: dict[str, Any] | None = None,
) -> None:
    """Write output and errors file in input order, each by atomic rename. Every row must be finished.

    An output that is a table by its name has all rows, failed ones too. schema: of its column `parsed`.

    Where no line failed there is no errors file; an older one is removed. Raises OutputUnavailableError, also where
    meanwhile something is there that is not the run's own.
    """
    try:
        mode = file_mode(state.output)
        with (
            replacing(state.output, mode, state.parts) as output_file,
            replacing(state.errors, file_mode(state.errors) or mode, state.parts) as errors_file,
        ):
            output, errors, failed = Digesting(output_file), Digesting(errors_file), 0
            kind = table_kind(state.output)
            if kind is not None:
                output = write_table(output_file, kind, job, lambda row: _line(job, ledger, journal, row), schema)
            for row in range(len(job)):
                if kind is not None and ledger.state[row] == ANSWERED:
                    continue
                if ledger.state[row] == ANSWERED:
                    output.write(journal.answer(int(ledger.offset[row]), int(ledger.length[row])) + b"\n")
                else:
                    errors.write(_error_line(job, ledger, journal, row) + b"\n")
                    failed += 1
            files.replace({OUTPUT: output, ERRORS: errors})
        if not failed:
            remove_written(state.errors)
    except OSError as error:
        then = f"the same command writes the answers, all of which are in {state.path}"
        if not journal.there:
            then = f"the same command begins anew: {state.path} is not there any more, and what it held is lost"
        raise unwritable(state.output, error, then) from error


def check_writable(state: StateFolder) -> None:
    """Refuse now what `write_answers` could not write at the end of a long run. Raises OutputUnavailableError."""
    for path in (state.output, state.errors):
        try:
            probe(path)
        except OSError as error:
            raise OutputUnavailableError(
                f"cannot write {path}: {error.strerror}; give an output in a folder that can be written, with -o"
            ) from error
