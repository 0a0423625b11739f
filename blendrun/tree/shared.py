"""What any two prompts share: the least of what neighbours between them share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendrun.tree.base import PrefixTree
from blendrun.tree.compiled import I32_IN, I32_OUT, I32_TABLE_IN, I64_IN, compiled, inlined

_BLOCK = 32


class SharedPrefix:
    """Common prefixes of any two leaves of one tree, a few nanoseconds each.

    Memory: 8 M bytes, least values from each leaf to the ends of its block of 32, and M log2(M / 32) / 8 bytes (2 MB
    for a million prompts), those of 2^j blocks.
    """

    def __init__(self, tree: PrefixTree) -> None:
        # shared, length, sides, table: what `least_between` takes.
        padded = np.full((-(-tree.prompts // _BLOCK), _BLOCK), np.iinfo(np.int32).max, dtype=np.int32)
        padded.reshape(-1)[: tree.prompts] = tree.shared
        length = np.ascontiguousarray(tree.depth[tree.leaf])
        self.columns = (tree.shared, length, _to_the_ends(padded), _block_minima(padded))

    def __call__(self, a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.int32]:
        """Tokens shared by the leaves at places a and b of the depth-first order, a leaf with itself all of its own.

        a, b: integers of one shape (n,), 0 <= a, b < M. Result: i32 (n,). Raises IndexError for any other place.
        """
        a, b = np.broadcast_arrays(np.asarray(a, dtype=np.int64), np.asarray(b, dtype=np.int64))
        low, high = np.ascontiguousarray(np.minimum(a, b)), np.ascontiguousarray(np.maximum(a, b))
        if low.size and (low.min() < 0 or high.max() >= len(self.columns[0])):
            raise IndexError(f"a leaf's place must be from 0 to {len(self.columns[0]) - 1}")
        result = np.empty(low.shape, dtype=np.int32)
        range_minima(*self.columns, low.reshape(-1), high.reshape(-1), result.reshape(-1))
        return result


def common_prefix(tree: PrefixTree, a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.int32]:
    """`SharedPrefix(tree)(a, b)`, for one call."""
    return SharedPrefix(tree)(a, b)


def _to_the_ends(padded: NDArray[np.int32]) -> NDArray[np.int32]:
    """The least from each place to its block's end, and from the block's beginning to it. i32 (blocks * _BLOCK, 2)."""
    sides = np.empty((*padded.shape, 2), dtype=np.int32)
    np.minimum.accumulate(padded[:, ::-1], axis=1, out=sides[:, ::-1, 0])
    np.minimum.accumulate(padded, axis=1, out=sides[:, :, 1])
    return sides.reshape(-1, 2)


def _block_minima(padded: NDArray[np.int32]) -> NDArray[np.int32]:
    """Row j: the least of the 2^j blocks from each block on, as far as there are. i32 (levels, blocks)."""
    blocks = len(padded)
    rows = [padded.min(axis=1, initial=np.iinfo(np.int32).max)]
    while 2 ** len(rows) <= blocks:
        row, step = rows[-1].copy(), 2 ** (len(rows) - 1)
        np.minimum(row[:-step], row[step:], out=row[:-step])
        rows.append(row)
    return np.stack(rows)


@inlined
def least_between(
    shared: NDArray[np.int32],
    length: NDArray[np.int32],
    sides: NDArray[np.int32],
    table: NDArray[np.int32],
    low: int,
    high: int,
) -> np.int32:
    """What the leaves at two places share, low <= high. Arrays as of `range_minima`."""
    first, last = low + 1, high
    if first > last:
        return np.int32(length[last])
    first_block, last_block = first // _BLOCK, last // _BLOCK
    if first_block == last_block:
        least = shared[first]
        for place in range(first + 1, last + 1):
            least = min(least, shared[place])
        return np.int32(least)
    least = min(sides[first, 0], sides[last, 1])
    between = last_block - first_block - 1
    if between > 0:
        level = 0
        while 2 << level <= between:
            level += 1
        least = min(least, table[level, first_block + 1], table[level, last_block - (1 << level)])
    return np.int32(least)


@compiled(I32_IN, I32_IN, I32_TABLE_IN, I32_TABLE_IN, I64_IN, I64_IN, I32_OUT)
def range_minima(
    shared: NDArray[np.int32],
    length: NDArray[np.int32],
    sides: NDArray[np.int32],
    table: NDArray[np.int32],
    low: NDArray[np.int64],
    high: NDArray[np.int64],
    result: NDArray[np.int32],
) -> None:
    """Least of shared[low + 1 : high + 1]; `length` where low is high. shared, length: i32 (M,); low, high: (n,)."""
    for query in range(len(low)):
        result[query] = least_between(shared, length, sides, table, low[query], high[query])
