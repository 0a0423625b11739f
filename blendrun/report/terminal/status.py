"""A run's status for people, and whether the run it speaks of still lives."""

from __future__ import annotations

import os
import platform

from blendrun.errors import InterruptedRunError
from blendrun.report.terminal.duration import left_text, span
from blendrun.report.tracker import RUNNING
from blendrun.store.status import BatchStatus
from blendrun.text import printable

_STALE_S = 120.0
_GOES_ON, _AGAIN = ("cancelled", "failed"), "; run the same command to go on"


def alive(status: BatchStatus) -> bool | None:
    """Whether the process that writes the status runs; None where it cannot be told (another machine)."""
    if status.blendrun.exit_code is not None:
        return False
    if status.blendrun.host != platform.node():
        return None
    try:
        os.kill(status.blendrun.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def status_lines(status: BatchStatus, now: float) -> list[str]:
    """Lines of text, the first one a sentence. now: Unix seconds."""
    counts, run = status.request_counts, status.blendrun
    lines = [_headline(status, now)]
    if counts.total:
        done = counts.completed + counts.failed
        share = 100 * done / counts.total
        lines.append(f"requests: {done:,} of {counts.total:,} ({share:.1f} %), {counts.failed:,} failed")
        if run.in_flight:
            lines[-1] += f", {run.in_flight:,} in flight"
        if without := run.copies + run.kept:
            lines[-1] += f"; {without:,} needed no engine"
    usage = status.usage
    if usage.total_tokens:
        cached = 100 * usage.input_tokens_details.cached_tokens / max(usage.input_tokens, 1)
        lines.append(f"tokens: {usage.input_tokens:,} in ({cached:.0f} % cached), {usage.output_tokens:,} out")
    if run.exit_code is None:
        lines += _at_work(status, now)
    elif run.begun_at is not None:
        took = run.updated_at - run.begun_at
        lines.append(f"took {span(took) if took >= 1 else 'less than a second'}")
    for name, path in (("output", status.output_file_id), ("errors", status.error_file_id)):
        if path is not None:
            lines.append(f"{name}: {path}")
    return [printable(line) for line in lines]


def _at_work(status: BatchStatus, now: float) -> list[str]:
    """What a run does, since when, and how long it will take."""
    run = status.blendrun
    lasts = "" if run.phase_at is None else f" for {span(now - run.phase_at)}"
    lines = [f"{run.phase}{lasts}: {run.detail}".removesuffix(": ")]
    if run.phase in RUNNING:
        lines.append(f"time left: {left_text(run.left_seconds, run.planned_seconds)}")
    if (begun := run.begun_at or status.in_progress_at) is not None:
        lines.append(f"began {span(now - begun)} ago")
    return lines


def _headline(status: BatchStatus, now: float) -> str:
    run = status.blendrun
    age = now - run.updated_at
    if run.exit_code is not None:
        return f"{_ended(status, run.exit_code)} {span(age)} ago{_AGAIN if status.status in _GOES_ON else ''}"
    living = alive(status)
    if living is False:
        return f"killed: process {run.pid} is gone, last seen {span(age)} ago{_AGAIN}"
    where = f"process {run.pid} on {run.host}"
    if living is None and age > _STALE_S:
        return f"{status.status} when last seen, {span(age)} ago ({where})"
    return f"{status.status} ({where})"


def _ended(status: BatchStatus, code: int) -> str:
    if status.status != "cancelled":
        return f"{status.status}, exit code {code},"
    return "stopped by Ctrl-C" if code == InterruptedRunError.exit_code else "stopped by a signal or its deadline"
