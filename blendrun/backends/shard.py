"""`--shard` as people and Slurm write it."""

from __future__ import annotations

import os
import re

from blendrun.errors import UsageError

SLURM = "slurm"


def parse_shard(text: str) -> tuple[int, int]:
    """Number (from 1) and count of `2/8`; of `slurm`, the place of this task in its array. Raises UsageError."""
    if text.strip().lower() == SLURM:
        return _of_array()
    found = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise UsageError(f"--shard takes i/n with i from 1 to n, for example 2/8, or slurm, not {text!r}")
    return int(found[1]), int(found[2])


def _of_array() -> tuple[int, int]:
    names = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP", "SLURM_ARRAY_TASK_COUNT")
    try:
        task, least, step, count = (int(os.environ.get(name, "1" if name.endswith("STEP") else "")) for name in names)
    except ValueError:
        raise UsageError("--shard slurm, and this is no task of a Slurm array; give i/n, for example 2/8") from None
    number = (task - least) // max(step, 1) + 1
    if not 1 <= number <= count:
        raise UsageError(
            f"--shard slurm: task {task} of an array that counts {count} from {least} by {step} has no place; give i/n "
            "with the numbers of an array without gaps, such as --array=1-8"
        )
    return number, count
