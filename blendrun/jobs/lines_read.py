"""What the lines of an input were, a few bytes each: whether another reading begins like it, whatever its limit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blendrun.jobs.job import Job

# Bytes of a line's digest that are kept. Two lines are taken for one in four thousand millions of changes.
_KEPT = 4


@dataclass(frozen=True, slots=True, eq=False)
class LinesRead:
    """limit: lines that were to be read; None for all. digests: u8 (N, 4), of the lines that there were."""

    limit: int | None
    digests: NDArray[np.uint8]

    @classmethod
    def of(cls, job: Job, limit: int | None) -> LinesRead:
        """Of a whole job, as it was indexed with that limit."""
        return cls(limit, np.ascontiguousarray(job.content[:, :_KEPT]))

    @classmethod
    def kept(cls, data: bytes, limit: int | None) -> LinesRead | None:
        """What `data` keeps; None where that is torn."""
        if len(data) % _KEPT:
            return None
        return cls(limit, np.frombuffer(data, dtype=np.uint8).reshape(-1, _KEPT))

    @property
    def data(self) -> bytes:
        """For a file."""
        return self.digests.tobytes()

    @property
    def to_the_end(self) -> bool:
        """Whether the input ended before the limit did."""
        return self.limit is None or len(self.digests) < self.limit

    def same_input(self, other: LinesRead) -> bool:
        """Whether both may be of one input: alike as far as both were read, and none ended before the other."""
        first, second = (self, other) if len(self.digests) <= len(other.digests) else (other, self)
        shorter = len(first.digests)
        if shorter < len(second.digests) and first.to_the_end:
            return False
        return np.array_equal(first.digests, second.digests[:shorter])
