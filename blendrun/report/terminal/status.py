"""A run's status for people, and whether the run it speaks of still lives."""

from __future__ import annotations

import os
import platform

from blendrun.report.terminal.duration import span, span_range
from blendrun.store.status import BatchStatus
from blendrun.text import printable

_STALE_S = 120.0


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
    if status.in_progress_at is not None and run.exit_code is None:
        lines.append(f"phase {run.phase} {run.detail}".rstrip() + f", running for {span(now - status.in_progress_at)}")
    if run.left_seconds is not None and run.exit_code is None:
        lines[-1] += f", {span_range(*run.left_seconds)} left"
    for name, path in (("output", status.output_file_id), ("errors", status.error_file_id)):
        if path is not None:
            lines.append(f"{name}: {path}")
    return [printable(line) for line in lines]


def _headline(status: BatchStatus, now: float) -> str:
    run = status.blendrun
    age = now - run.updated_at
    if run.exit_code is not None:
        again = "; the same command goes on" if status.status in ("cancelled", "failed") else ""
        return f"{status.status}, exit code {run.exit_code}, {span(age)} ago{again}"
    living = alive(status)
    if living is False:
        return f"killed: process {run.pid} is gone, last seen {span(age)} ago; the same command goes on"
    where = f"process {run.pid} on {run.host}"
    if living is None and age > _STALE_S:
        return f"{status.status} when last seen, {span(age)} ago ({where})"
    return f"{status.status} ({where})"
