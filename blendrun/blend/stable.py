"""A stable sort by one number each, several times as fast as NumPy's own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SIGN = np.uint64(1 << 63)


def stable_order(key: NDArray[np.float64]) -> NDArray[np.int64]:
    """Places by key, lowest first, equal keys as they stand: `np.argsort(key, kind="stable")`.

    key: f64 (n,), no NaN, n < 2**32. Result: i64 (n,).
    """
    # NumPy sorts whole numbers on vector instructions, and in place: sorting places by their keys looks each key up, at
    # random. So each number holds as much of the key as there is room for, and the place below it.
    bits = max(len(key) - 1, 1).bit_length()
    place = np.uint64((1 << bits) - 1)
    found = _ascending(key)
    whole = not (found & place).any()
    found &= ~place
    found |= np.arange(len(key), dtype=np.uint64)
    found.sort()
    order: NDArray[np.int64] = (found & place).view(np.int64)
    if not whole:
        found &= ~place
        _sort_alike(order, key, found[1:] == found[:-1])
    return order


def _ascending(key: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Whole numbers in the order of the keys: u64 (n,). IEEE 754 numbers of one sign are ordered as their bits are."""
    # Adding 0 makes one zero of both.
    bits = (key + 0.0).view(np.uint64)
    mask = (bits.view(np.int64) >> 63).view(np.uint64)
    mask |= _SIGN
    bits ^= mask
    return bits


def _sort_alike(order: NDArray[np.int64], key: NDArray[np.float64], alike: NDArray[np.bool_]) -> None:
    """Put right, in place, what the bits that had no room would order otherwise. alike: with the one before it."""
    follows = np.concatenate(([False], alike))
    member = follows.copy()
    member[:-1] |= alike
    at = np.flatnonzero(member)
    mine = order[at]
    keys = key[mine]
    wrong = (keys[1:] < keys[:-1]) & follows[at[1:]]
    if wrong.any():
        run = np.cumsum(~follows[at])
        order[at] = mine[np.lexsort((mine, keys, run))]
