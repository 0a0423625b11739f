"""A stable sort by one number each, several times as fast as NumPy's own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_PLACE = 32


def stable_order(key: NDArray[np.float64]) -> NDArray[np.int64]:
    """Places by key, lowest first, equal keys as they stand: `np.argsort(key, kind="stable")`.

    key: f64 (n,), no NaN, n < 2**32. Result: i64 (n,).
    """
    # NumPy's unstable sorts run on vector instructions. What they mix up is put right by a second one, of whole numbers
    # that hold the run of equal keys and, below it, the place.
    order: NDArray[np.int64] = np.argsort(key)
    ordered = key[order]
    further = ordered[1:] != ordered[:-1]
    if further.all():
        return order
    run = np.concatenate(([0], np.cumsum(further, dtype=np.int64)))
    run <<= _PLACE
    run |= order
    run.sort()
    run &= (1 << _PLACE) - 1
    return run
