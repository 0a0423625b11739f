"""records.jsonl: planned and actual of each request that an engine was asked, one line when it has ended.

With steps.jsonl (`engine.scheduler.step_log`, whose `admitted` are these lines' `index`) every figure of a run can be
computed from its files.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from blendrun.endpoints.base import Usage
from blendrun.engine.base import Result
from blendrun.engine.scheduler.log_file import torn
from blendrun.planner.feeder import QueuedRequest

_FLUSH_BYTES = 1 << 16


class RequestRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds since the engine was ready; tokens.

    run: number of the invocation, its start in seconds since 1970. replica: whose engine it was, from 1. row: line of
    the input, from 0. index: place in what was fed. side: 0 for the compute-heavy end of the plan, 1 for the other.
    subtree: node of the prefix tree that it hangs on (in depth-first order), -1 where it was not planned.
    planned_output: expected of each choice, 0 where nothing was. planned_hit: what a cache without bounds would have
    had. output: of all choices.

    Lines that were answered without an engine (copies of other lines, answers kept from other runs) have no record; the
    id of their line in the output ends with `_copy` or `_cache`.
    """

    run: int
    custom_id: str
    row: int
    index: int
    side: int
    subtree: int = -1
    planned_output: int
    planned_hit: int
    prompt: int
    cached: int
    output: int
    finish: tuple[str, ...]
    error: str | None
    submitted: float
    ended: float
    replica: int = 1


class Records:
    """Appends to the file; a torn last line is all that a kill can leave. A full disk costs records, not answers.

    within: tokens of what was added that parts of a line share with each other, and that no plan counts as found.
    """

    def __init__(self, path: Path, replica: int = 1) -> None:
        self.within = 0
        self._replica = replica
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            self._file = os.fdopen(handle, "ab", buffering=_FLUSH_BYTES)
        except OSError:
            self._file = Path(os.devnull).open("wb")  # noqa: SIM115  # open until `close`
        with suppress(OSError):
            if torn(path):
                self._file.write(b"\n")
        self._run = int(time.time())
        self._began = time.monotonic()

    def now(self) -> float:
        return round(time.monotonic() - self._began, 4)

    def add(self, custom_id: str, queued: QueuedRequest, result: Result, submitted: float) -> None:
        """Note down a request that has ended."""
        within = _within(queued, result.usage)
        self.within += within
        record = RequestRecord(
            run=self._run,
            custom_id=custom_id,
            row=queued.row,
            index=queued.index,
            side=queued.side,
            subtree=queued.subtree,
            planned_output=queued.output,
            planned_hit=queued.hit + within,
            prompt=result.usage.prompt,
            cached=result.usage.cached,
            output=result.usage.output,
            finish=result.finish_reasons,
            error=result.error_code,
            submitted=submitted,
            ended=self.now(),
            replica=self._replica,
        )
        with suppress(OSError):
            self._file.write(msgspec.json.encode(record) + b"\n")

    def flush(self) -> None:
        """Let others read what there is."""
        with suppress(OSError):
            self._file.flush()

    def close(self) -> None:
        with suppress(OSError):
            self._file.close()


def _within(queued: QueuedRequest, usage: Usage) -> int:
    """Tokens that parts of a line that decodes nothing share with each other: the plan has them once, and the engine's
    count of the prompt as often as it found them.
    """
    return 0 if queued.prompt < 0 or usage.output else max(0, usage.prompt - queued.tokens)


def record_schema() -> bytes:
    """JSON schema of a line."""
    return msgspec.json.format(msgspec.json.encode(msgspec.json.schema(RequestRecord)), indent=2)
