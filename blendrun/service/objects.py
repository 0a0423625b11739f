"""OpenAI's objects, as they are kept and as they are told."""

from __future__ import annotations

import secrets
import time
from typing import Any, Literal

import msgspec

FileStatus = Literal["processed"]
BatchStatus = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
]
# What ends a batch for good.
ENDED: tuple[BatchStatus, ...] = ("failed", "completed", "expired", "cancelled")
# Fields that nobody else's business are.
_OWN = ("owner", "run", "number", "alone", "output_expires_after")


class FileObject(msgspec.Struct, kw_only=True):
    """owner: digest of the key that it belongs to. bytes: its size. expires_at: when it is deleted; None for never."""

    id: str
    owner: str
    bytes: int
    created_at: int
    filename: str
    purpose: str
    expires_at: int | None = None
    number: int = 0
    object: Literal["file"] = "file"
    status: FileStatus = "processed"


class Counts(msgspec.Struct, kw_only=True):
    """Requests of a batch."""

    total: int = 0
    completed: int = 0
    failed: int = 0


class BatchError(msgspec.Struct, kw_only=True):
    """Why a file could not become a batch. line: of the file, from 1."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


class BatchErrors(msgspec.Struct, kw_only=True):
    """A list of them."""

    data: list[BatchError]
    object: Literal["list"] = "list"


class BatchObject(msgspec.Struct, kw_only=True):
    """owner: as of a file. run: the job that it is a part of, once it is one. alone:
    whether that is to have no other part. number: later ones have larger ones.
    output_expires_after: seconds that its answers' files are kept; None for ever.
    model: that answers. notes: what its client should know of it, in sentences.
    Times: seconds since 1970; expires_at: when it has to be done.
    """

    id: str
    owner: str
    endpoint: str
    input_file_id: str
    completion_window: str
    created_at: int
    expires_at: int
    status: BatchStatus = "validating"
    number: int = 0
    run: str | None = None
    alone: bool = False
    output_expires_after: int | None = None
    model: str | None = None
    object: Literal["batch"] = "batch"
    errors: BatchErrors | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    in_progress_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    request_counts: Counts = msgspec.field(default_factory=Counts)
    usage: dict[str, Any] | None = None
    metadata: dict[str, str] | None = None
    notes: list[str] | None = None

    def turn(self, status: BatchStatus) -> None:
        """Have another status from now on."""
        self.status = status
        setattr(self, f"{status}_at", now())


def told(found: FileObject | BatchObject) -> dict[str, Any]:
    """As a client sees it."""
    whole: dict[str, Any] = msgspec.to_builtins(found)
    return {name: value for name, value in whole.items() if name not in _OWN}


def new_id(kind: str) -> str:
    return f"{kind}{secrets.token_hex(16)}"


def now() -> int:
    return int(time.time())
