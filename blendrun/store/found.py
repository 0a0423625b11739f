"""Answers that a person should look at: how many, and the first ones by name."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blendrun.jobs.job import Job

# So many are named; all of them are in a list.
_NAMED = 10


@dataclass(frozen=True, slots=True)
class Found:
    """count: answers. first: custom_ids of the first ten, in input order."""

    count: int = 0
    first: tuple[str, ...] = ()

    @classmethod
    def of(cls, job: Job, rows: NDArray[np.int64]) -> Found:
        """rows: of the job, ascending."""
        return cls(len(rows), tuple(job.request(row).custom_id for row in rows[:_NAMED].tolist()))


NOTHING = Found()
