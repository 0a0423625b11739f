"""status.json: how far a run is, for other programs while it works. An OpenAI batch object with a part of our own."""

from __future__ import annotations

import os
import platform
import time
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

import msgspec

from blendrun.errors import BlendrunError
from blendrun.events import EngineStats, Event, Expected, Listener, Note, PhaseStarted, Progress, Work
from blendrun.files import write_atomically
from blendrun.learned.outlook import Outlook
from blendrun.store.summary import Summary

_INTERVAL_S = 2.0
_RUNNING = ("run", "isolate", "drain")
# Batch status while a phase runs; all others are "in_progress".
_OF_PHASE = {
    "fetch": "validating",
    "index": "validating",
    "write": "finalizing",
    "upload": "finalizing",
    "drain": "cancelling",
}
# Ends of a run by exit code; what is "cancelled" is resumed by the same command.
_OF_EXIT = {75: "cancelled", 130: "cancelled"}


class RequestCounts(msgspec.Struct, frozen=True):
    """Lines of the job."""

    total: int = 0
    completed: int = 0
    failed: int = 0


class TokenDetails(msgspec.Struct, frozen=True):
    """Prompt tokens that came from the prefix cache."""

    cached_tokens: int = 0


class BatchUsage(msgspec.Struct, frozen=True):
    """Tokens; while a run works, those of this invocation."""

    input_tokens: int = 0
    input_tokens_details: TokenDetails = TokenDetails()
    output_tokens: int = 0
    total_tokens: int = 0


class ProcessStatus(msgspec.Struct, frozen=True):
    """What OpenAI's object has no place for. phase: index, tokenise, ..., run, drain, write. exit_code: null while it
    works. phase_at: Unix seconds, when that began; null before. updated_at: Unix seconds, of this file. left_seconds:
    least and most that the phase `run` will still take; null where nobody knows yet. planned_seconds: of that phase by
    the plan, null without one. copies, kept: lines that are done without an engine: they ask the same as another one,
    or their answers were kept from other runs. begun_at: Unix seconds, when the command of this invocation began.
    """

    pid: int
    host: str
    phase: str
    detail: str
    in_flight: int
    updated_at: float
    exit_code: int | None = None
    phase_at: float | None = None
    left_seconds: tuple[float, float] | None = None
    planned_seconds: float | None = None
    copies: int = 0
    kept: int = 0
    begun_at: float | None = None


class BatchStatus(msgspec.Struct, frozen=True):
    """Names and meanings are those of OpenAI's batch object; times in Unix seconds. Schema version 1.

    input_file_id, output_file_id, error_file_id: paths. status: validating, in_progress, finalizing, completed, failed,
    cancelling, or cancelled (by a signal or a deadline: the same command resumes).
    """

    id: str
    model: str
    input_file_id: str
    status: str
    created_at: int
    blendrun: ProcessStatus
    object: str = "batch"
    schema_version: int = 1
    output_file_id: str | None = None
    error_file_id: str | None = None
    in_progress_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    request_counts: RequestCounts = RequestCounts()
    usage: BatchUsage = BatchUsage()


class StatusFile:
    """Follows a run's events. What cannot be written is left: it costs the status, not the run."""

    def __init__(
        self, path: Path, *, model: str, inputs: tuple[str, ...], output: Path, begun_at: float | None = None
    ) -> None:
        """begun_at: when the command began, in Unix seconds; None for now."""
        self._path = path
        now = time.time() if begun_at is None else begun_at
        before = read(path)
        # An invocation that is refused says nothing of the run before, but that a kill ended it.
        self._open = not os.path.lexists(path)
        self._killed = before if before is not None and before.blendrun.exit_code is None else None
        self._status = BatchStatus(
            id=f"batch_{blake2b(str(output.absolute()).encode(errors='replace'), digest_size=12).hexdigest()}",
            model=model,
            input_file_id=", ".join(inputs),
            status="validating",
            created_at=before.created_at if before is not None else int(now),
            blendrun=ProcessStatus(os.getpid(), platform.node(), "index", "", 0, time.time(), begun_at=round(now, 3)),
        )
        self._written = 0.0
        self._outlook = Outlook()

    @property
    def ended(self) -> bool:
        """Whether the end of this invocation is told."""
        return self._status.blendrun.exit_code is not None

    def beside(self, listener: Listener) -> Listener:
        """A listener that also keeps this file."""

        def both(event: Event) -> None:
            self.take(event)
            listener(event)

        return both

    def open(self) -> None:
        """The invocation is no more refused: from now on the file is about it."""
        self._open = True
        self._write()

    def take(self, event: Event) -> None:
        """Take in an event; phases are written at once, progress every two seconds."""
        self._outlook.take(event)
        if isinstance(event, Expected):
            self._status = msgspec.structs.replace(
                self._status, blendrun=msgspec.structs.replace(self._status.blendrun, planned_seconds=event.seconds)
            )
        if isinstance(event, Note | Expected | EngineStats | Work):
            return
        before = self._status
        if isinstance(event, PhaseStarted):
            self._begin(event)
        else:
            self._advance(event)
        news = isinstance(event, PhaseStarted) or self._status.request_counts.total != before.request_counts.total
        if news or time.monotonic() - self._written >= _INTERVAL_S:
            self._write()

    def end(self, summary: Summary) -> None:
        """The invocation is over."""
        now = int(time.time())
        status = _OF_EXIT.get(summary.exit_code, "completed" if summary.status == "completed" else "failed")
        tokens = summary.tokens
        self._status = msgspec.structs.replace(
            self._status,
            status=status,
            output_file_id=summary.output if status == "completed" else None,
            error_file_id=summary.errors if status == "completed" else None,
            request_counts=RequestCounts(summary.counts.total, summary.counts.completed, summary.counts.failed),
            usage=_usage(tokens.prompt, tokens.cached, tokens.output),
            blendrun=msgspec.structs.replace(
                self._status.blendrun,
                phase="end",
                detail="",
                in_flight=0,
                exit_code=summary.exit_code,
                phase_at=None,
                left_seconds=None,
                planned_seconds=None,
                copies=summary.taken.copies,
                kept=summary.taken.cache,
            ),
            **{f"{status}_at": now},
        )
        self._write()

    def fail(self, exit_code: int) -> None:
        """The invocation ended without counts of its own."""
        if not self._open and self._killed is not None:
            self._open, self._status = True, self._killed
        status = _OF_EXIT.get(exit_code, "failed")
        invocation = msgspec.structs.replace(self._status.blendrun, in_flight=0, exit_code=exit_code)
        self._status = msgspec.structs.replace(
            self._status, status=status, blendrun=invocation, **{f"{status}_at": int(time.time())}
        )
        self._write()

    def _begin(self, event: PhaseStarted) -> None:
        status = _OF_PHASE.get(event.name, "in_progress")
        if self._status.status == "cancelling" and status == "in_progress":
            status = "cancelling"
        changed: dict[str, int] = {}
        if status != "validating" and getattr(self._status, f"{status}_at") is None:
            changed = {f"{status}_at": int(time.time())}
        # A file's name need not be Unicode.
        detail = event.detail.encode(errors="replace").decode()
        before = self._status.blendrun
        begun = before.phase_at if before.phase == event.name else round(time.time(), 3)
        invocation = msgspec.structs.replace(
            before, phase=event.name, detail=detail, phase_at=begun, left_seconds=None, exit_code=None
        )
        self._status = msgspec.structs.replace(self._status, status=status, blendrun=invocation, **changed)

    def _advance(self, event: Progress) -> None:
        if event.unit != "requests" or self._status.blendrun.phase not in (*_RUNNING, "load"):
            return
        self._status = msgspec.structs.replace(
            self._status,
            request_counts=RequestCounts(event.total, event.done - event.failed, event.failed),
            usage=_usage(event.prompt_tokens, event.cached_tokens, event.output_tokens),
            blendrun=msgspec.structs.replace(
                self._status.blendrun,
                in_flight=event.in_flight,
                left_seconds=self._left(),
                copies=event.copies,
                kept=event.kept,
            ),
        )

    def _left(self) -> tuple[float, float] | None:
        """To a tenth of a second."""
        found = self._outlook.left()
        return None if found is None else (round(found[0], 1), round(found[1], 1))

    def _write(self) -> None:
        if not self._open:
            return
        self._written = time.monotonic()
        invocation = msgspec.structs.replace(self._status.blendrun, updated_at=round(time.time(), 3))
        self._status = msgspec.structs.replace(self._status, blendrun=invocation)
        with suppress(BlendrunError, OSError):
            write_atomically(self._path, msgspec.json.format(msgspec.json.encode(self._status), indent=2) + b"\n")


def _usage(prompt: int, cached: int, output: int) -> BatchUsage:
    return BatchUsage(prompt, TokenDetails(cached), output, prompt + output)


def read(path: Path) -> BatchStatus | None:
    """The status at `path`; None where there is none that this version reads."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=BatchStatus)
    except (OSError, msgspec.DecodeError):
        return None


def status_schema() -> bytes:
    """JSON schema of the file."""
    return msgspec.json.format(msgspec.json.encode(msgspec.json.schema(BatchStatus)), indent=2)
