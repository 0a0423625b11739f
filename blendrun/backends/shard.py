"""`--shard` as people and Slurm write it."""

from __future__ import annotations

import os
import re

from blendrun.errors import UsageError
from blendrun.text import cut

SLURM = "slurm"
# More than any scheduler's array has.
MOST_SHARDS = 100_000


def parse_shard(text: str) -> tuple[int, int]:
    """Number (from 1) and count of `2/8`; of `slurm`, the place of this task in its array. Raises UsageError."""
    if text.strip().lower() == SLURM:
        return _of_array()
    found = re.fullmatch(r"\s*([0-9]{1,9})\s*/\s*([0-9]{1,9})\s*", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]) <= MOST_SHARDS:
        what = f"i from 1 to n, which is {MOST_SHARDS:,} at most"
        raise UsageError(f"--shard takes i/n with {what}, for example 2/8, or slurm, not {cut(text, 40)!r}")
    return int(found[1]), int(found[2])


def _of_array() -> tuple[int, int]:
    names = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP", "SLURM_ARRAY_TASK_COUNT")
    try:
        task, least, step, count = (int(os.environ.get(name, "1" if name.endswith("STEP") else "")) for name in names)
    except ValueError:
        raise UsageError("--shard slurm, and this is no task of a Slurm array; give i/n, for example 2/8") from None
    number = (task - least) // max(step, 1) + 1
    if not 1 <= number <= count <= MOST_SHARDS:
        raise UsageError(
            f"--shard slurm: task {task} of an array that counts {count} from {least} by {step} has no place; give i/n "
            "with the numbers of an array without gaps, such as --array=1-8"
        )
    return number, count
