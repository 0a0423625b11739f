"""Durations as people write them, and what Slurm says of a job's end."""

from __future__ import annotations

import os
import re
import subprocess
import time

from blendrun.errors import UsageError

_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_SQUEUE_TIMEOUT_S = 20.0


def parse_duration(text: str, option: str) -> float:
    """Seconds of `3h50m`, `45m`, `90s`, `1d12h`, `02:30:00` or a bare number of seconds. Raises UsageError."""
    text = text.strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if (clock := _clock(text)) is not None:
        return clock
    parts = re.findall(r"(\d+(?:\.\d+)?)([dhms])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise UsageError(f"{option} {text!r} is no duration; write 3h50m, 45m, 90s or 02:30:00")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def parse_deadline(text: str | None) -> float | None:
    """Seconds from now: a duration, or `slurm` for the end of the Slurm job that this runs in. Raises UsageError."""
    if text is None:
        return None
    return _slurm_left() if text.strip().lower() == "slurm" else parse_duration(text, "--deadline")


def _slurm_left() -> float:
    if end := os.environ.get("SLURM_JOB_END_TIME", ""):
        if not end.isdecimal():
            raise UsageError(f"--deadline slurm: SLURM_JOB_END_TIME={end} is no time; give a duration instead")
        return max(int(end) - time.time(), 0.0)
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        raise UsageError("--deadline slurm: this is no Slurm job (SLURM_JOB_ID is not set); give a duration instead")
    command = ["squeue", "--noheader", "--job", job, "--format", "%L"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_SQUEUE_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise UsageError(f"--deadline slurm: squeue does not answer ({error}); give a duration instead") from error
    left = _clock(answer.stdout.split()[0] if answer.stdout.split() else "")
    if left is None:
        raise UsageError(f"--deadline slurm: job {job} has no end ({answer.stdout.strip()!r}); give a duration instead")
    return left


def _clock(text: str) -> float | None:
    """Seconds of Slurm's [days-]hours:minutes:seconds or minutes:seconds."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
