"""Durations as people write them, and what Slurm says of a job's end."""

from __future__ import annotations

import os
import re
import subprocess
import time

from blendrun.errors import UsageError
from blendrun.text import cut

_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_SQUEUE_TIMEOUT_S = 20.0
# Nobody means more than ten years; and of a number, no digits beyond these are read.
LONGEST_S = 3.2e8
_DIGITS = r"[0-9]{1,15}"
_SHOWN = 40


def parse_duration(text: str, option: str) -> float:
    """Seconds of `3h50m`, `45m`, `90s`, `1d12h`, `02:30:00` or a bare number of seconds. Raises UsageError."""
    text = text.strip().lower()
    seconds = _seconds(text)
    if seconds is None:
        raise UsageError(f"{option} {cut(text, _SHOWN)!r} is no duration; write 3h50m, 45m, 90s or 02:30:00")
    if seconds > LONGEST_S:
        raise UsageError(f"{option} {cut(text, _SHOWN)!r} is longer than ten years; leave it out for no end")
    return seconds


def _seconds(text: str) -> float | None:
    """None for what is no duration."""
    if re.fullmatch(rf"{_DIGITS}(\.{_DIGITS})?", text):
        return float(text)
    if (clock := _clock(text)) is not None:
        return clock
    parts = re.findall(rf"({_DIGITS}(?:\.{_DIGITS})?)([dhms])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def parse_deadline(text: str | None) -> float | None:
    """Seconds from now: a duration, or `slurm` for the end of the Slurm job that this runs in. Raises UsageError."""
    if text is None:
        return None
    return _slurm_left() if text.strip().lower() == "slurm" else parse_duration(text, "--deadline")


def _slurm_left() -> float:
    if end := os.environ.get("SLURM_JOB_END_TIME", ""):
        left = int(end) - time.time() if re.fullmatch(_DIGITS, end) else LONGEST_S + 1
        if left > LONGEST_S:
            shown = cut(end, _SHOWN)
            raise UsageError(f"--deadline slurm: SLURM_JOB_END_TIME={shown!r} is no time; give a duration instead")
        return max(left, 0.0)
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        raise UsageError("--deadline slurm: this is no Slurm job (SLURM_JOB_ID is not set); give a duration instead")
    command = ["squeue", "--noheader", "--job", job, "--format", "%L"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_SQUEUE_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise UsageError(f"--deadline slurm: squeue does not answer ({error}); give a duration instead") from error
    time_left = _clock(answer.stdout.split()[0] if answer.stdout.split() else "")
    if time_left is None or time_left > LONGEST_S:
        said = cut(answer.stdout.strip(), _SHOWN)
        raise UsageError(f"--deadline slurm: job {job} has no end ({said!r}); give a duration instead")
    return time_left


def _clock(text: str) -> float | None:
    """Seconds of Slurm's [days-]hours:minutes:seconds or minutes:seconds."""
    found = re.fullmatch(rf"(?:({_DIGITS})-)?(?:({_DIGITS}):)?({_DIGITS}):({_DIGITS})", text)
    if found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
