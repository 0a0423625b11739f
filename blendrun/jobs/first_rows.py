"""Which rows are alike: the first row of each digest, found by sorting."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def first_rows(owner: NDArray[np.uint64], left_out: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For each row the first row with the same digest, -1 where that is itself.

    Rows that are left out are like no other. Sorting brings equal digests side by side, without a dict of N strings.
    owner: u64 (N, 2).
    """
    rows = np.flatnonzero(~left_out)
    # lexsort is stable: rows of one digest stay in input order, so the first of a run is the first in the input.
    order = rows[np.lexsort((owner[rows, 1], owner[rows, 0]))]
    first = np.full(len(left_out), -1, dtype=np.int64)
    if len(order):
        ranked = owner[order]
        starts = np.concatenate(([True], (ranked[1:] != ranked[:-1]).any(axis=1)))
        heads = order[starts][np.cumsum(starts) - 1]
        repeats = ~starts
        first[order[repeats]] = heads[repeats]
    return first


def copies_of(asked: NDArray[np.uint8], rejected: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For each row the first one that asks the same, -1 where that is itself, or it stands alone.

    asked: u8 (N, 16), as `Job` has it.
    """
    digests = np.ascontiguousarray(asked).view(np.uint64)
    return first_rows(digests, rejected | ~digests.any(axis=1))
