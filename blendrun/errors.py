"""What can go wrong: errors that end a command (each with its exit code) and errors of one request line.

Exit codes follow sysexits where one fits; docs/operations.md has the table for users.
"""

from __future__ import annotations

import errno
from enum import StrEnum

from blendrun.text import cut


class BlendrunError(Exception):
    """Ends the command. The message is one sentence that says what to do next."""

    exit_code = 1


class UsageError(BlendrunError):
    """The command line or a config file asks for something that does not exist."""

    exit_code = 2


class OverlapRefusedError(UsageError):
    """The overlap mode that was asked for by name cannot be had on this engine or for this job."""


class TooManyErrorsError(BlendrunError):
    """More lines failed than `--max-errors` allows. Finished answers are in the journal."""

    exit_code = 4


class InputInvalidError(BlendrunError):
    """The input as a whole cannot be run (nothing in it is a request, or strict mode found a bad line)."""

    exit_code = 65


class InputMissingError(BlendrunError):
    """A file, a folder or weights that the command names are not there."""

    exit_code = 66


class EngineUnavailableError(BlendrunError):
    """The engine could not start, or died beyond its restarts. Finished answers are in the journal.

    out_of_memory: whether that is what it died of. machine_lost: whether it went with the machine that it was on, or
    turns everybody away, so that no request is to blame and another engine may well come up.
    """

    exit_code = 69

    def __init__(self, message: str, *, out_of_memory: bool = False, machine_lost: bool = False) -> None:
        super().__init__(message)
        self.out_of_memory = out_of_memory
        self.machine_lost = machine_lost


class OutputUnavailableError(BlendrunError):
    """The output cannot be written, or another run holds it."""

    exit_code = 73


_REMEDIES = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room in the quota",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f)",
    errno.EROFS: "make its file system writable",
}


def unreadable(path: object, error: OSError, then: str) -> OutputUnavailableError:
    """The error of a file of a run's state that cannot be read. then: what comes of it once that is fixed, a clause."""
    return OutputUnavailableError(f"cannot read {path}: {_said(error)}; fix that, and {then}")


def unwritable(path: object, error: OSError, then: str) -> OutputUnavailableError:
    """The error of a file that cannot be written. then: what comes of it once that is fixed, a clause."""
    remedy = _REMEDIES.get(error.errno or 0, "fix that")
    return OutputUnavailableError(f"cannot write {path}: {_said(error)}; {remedy}, and {then}")


def unusable(path: object, error: OSError) -> OutputUnavailableError:
    """The error of whatever else fails below a run's state folder. path: that folder, where the error names no file."""
    where = path if error.filename is None else error.filename
    return OutputUnavailableError(f"cannot use {where}: {_said(error)}; fix that, and the same command goes on")


def _said(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__


class DrainedError(BlendrunError):
    """Stopped by a signal before the end; the same command again resumes."""

    exit_code = 75


class ManifestMismatchError(BlendrunError):
    """Resume refused: what decides the answers has changed since the run began."""

    exit_code = 78


class InterruptedRunError(BlendrunError):
    """Stopped by Ctrl-C; the same command again resumes."""

    exit_code = 130


def exit_code_of(error: BaseException) -> int:
    """What the command ends with; 1 for what nobody foresaw."""
    return error.exit_code if isinstance(error, BlendrunError) else EXIT_BUG


EXIT_OK = 0
EXIT_BUG = 1
EXIT_SOME_LINES_FAILED = 3
EXIT_TOO_MANY_ERRORS = TooManyErrorsError.exit_code


class ErrorCode(StrEnum):
    """Codes of the errors file. Frozen: users match on them."""

    INVALID_JSON = "invalid_json"
    INVALID_REQUEST = "invalid_request"
    DUPLICATE_CUSTOM_ID = "duplicate_custom_id"
    CONTEXT_LENGTH_EXCEEDED = "context_length_exceeded"
    SCHEMA_UNSUPPORTED = "schema_unsupported"
    MEDIA_UNAVAILABLE = "media_unavailable"
    INVALID_ANSWER = "invalid_answer"
    ENGINE_ERROR = "engine_error"
    REQUEST_TIMEOUT = "request_timeout"
    BATCH_CANCELLED = "batch_cancelled"
    BATCH_EXPIRED = "batch_expired"


class LineError(Exception):
    """One request line is refused; it becomes a record of the errors file and costs no other line its answer.

    content: digest of the request where the line is one and only what this run allows refuses it.
    results: whether the line is one of Anthropic's batches, and its error is to be in their words too.
    """

    def __init__(self, code: ErrorCode, message: str, custom_id: str | None = None) -> None:
        # What lines bring into it (names of fields, say) may be as long as a line.
        self.message = cut(message)
        super().__init__(self.message)
        self.code = code
        self.custom_id = custom_id
        self.content: bytes | None = None
        self.results = False
