"""Lengths: what is expected of each request's output."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class LengthSource(IntEnum):
    """Where a length came from, best first. The number is what `Lengths.source` holds."""

    KNOWN = 0
    REFERENCE = 1
    SAMPLES = 2
    HISTORY = 3
    PRIOR = 4


@dataclass(frozen=True, slots=True, eq=False)
class Lengths:
    """Output tokens expected of one choice of each of M prompts, in input order (as in `Prompts`).

    mean: f64 (M,), mean of d, in tokens; 0 <= mean <= bound.
    square: f64 (M,), mean of d^2; >= mean^2. The KV reads of decoding are quadratic in d, so the mean is not enough
        (docs/paper.md#both-moments-of-a-length).
    bound: i32 (M,), most tokens d can be.
    source: u8 (M,), a `LengthSource`.
    """

    mean: NDArray[np.float64]
    square: NDArray[np.float64]
    bound: NDArray[np.int32]
    source: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.mean)

    def take(self, numbers: NDArray[np.int64]) -> Lengths:
        """Of some of the prompts. numbers: i64 (n,)."""
        return Lengths(self.mean[numbers], self.square[numbers], self.bound[numbers], self.source[numbers])
