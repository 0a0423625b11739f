"""The loops of `sort`: merging sorted runs of strings that carry what they share with the string before them.

The arguments are the columns of `sort.Strings` (units, begin, length, root, tail) and of `sort.Runs` (perm, lcp,
following), of runs to read and of runs to write.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from blendrun.tree.compiled import I32_IN, I32_OUT, I64, I64_IN, I64_OUT, compiled, inlined

Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]

_STRINGS = (I32_IN, I64_IN, I32_IN, I32_IN, I32_IN)
_RUNS = (I32_OUT, I32_OUT, I64_OUT)

# Before every unit, which has 32 bits: a string comes before those that go on.
_END = -(2**40)


@inlined
def common_units(units: Int32s, a: int, b: int, known: int, limit: int) -> int:
    """Units that the strings beginning at a and b share, of which `known` are known, up to `limit`."""
    k = known
    # Sixteen at once without a branch, which becomes vector instructions.
    while k + 16 <= limit:
        x, y = units[a + k : a + k + 16], units[b + k : b + k + 16]
        different = 0
        for i in range(16):
            different |= x[i] ^ y[i]
        if different != 0:
            break
        k += 16
    while k < limit and units[a + k] == units[b + k]:
        k += 1
    return k


@inlined
def unit_at(units: Int32s, begin: int, length: int, place: int) -> int:
    """A string's unit at a place from 0 to its length, where it ends."""
    return int(units[begin + place]) if place < length else _END


@inlined
def merge(
    units: Int32s,
    begin: Int64s,
    length: Int32s,
    root: Int32s,
    tail: Int32s,
    perm: Int32s,
    lcp: Int32s,
    following: Int64s,
    to_perm: Int32s,
    to_lcp: Int32s,
    to_following: Int64s,
    a: int,
    a_end: int,
    b: int,
    b_end: int,
    out: int,
) -> None:
    """Merge [a, a_end) and [b, b_end) into what begins at `out`; equal strings of the first run come first.

    The heads are compared from the root on, so both ranges may begin inside a run.
    """
    a_lcp, b_lcp = -1, -1
    a_next = int(root[perm[a]]) if a < a_end else 0
    b_next = int(root[perm[b]]) if b < b_end else 0
    while a < a_end or b < b_end:
        if b >= b_end:
            a_first = True
        elif a >= a_end:
            a_first = False
        elif a_lcp == b_lcp and a_next == b_next:
            # The only case that reads strings. What the loser shares with the winner is found on the way.
            x, y = perm[a], perm[b]
            k, u, v = a_lcp, _END, _END
            if a_next != _END:
                k = common_units(units, begin[x], begin[y], a_lcp + 1, min(length[x], length[y]))
                u = unit_at(units, begin[x], length[x], k)
                v = unit_at(units, begin[y], length[y], k)
            a_first = u < v or (u == v and tail[x] <= tail[y])
            if a_first:
                b_lcp, b_next = k, v
            else:
                a_lcp, a_next = k, u
        else:
            # Who shares more with the last one written is nearer to it. The loser shares no more with the winner.
            a_first = a_lcp > b_lcp or (a_lcp == b_lcp and a_next < b_next)
        if a_first:
            to_perm[out], to_lcp[out], to_following[out] = perm[a], a_lcp, a_next
            a += 1
            if a < a_end:
                a_lcp, a_next = lcp[a], following[a]
        else:
            to_perm[out], to_lcp[out], to_following[out] = perm[b], b_lcp, b_next
            b += 1
            if b < b_end:
                b_lcp, b_next = lcp[b], following[b]
        out += 1


@compiled(*_STRINGS, *_RUNS, *_RUNS, I64, I64, I64)
def sort_run(
    units: Int32s,
    begin: Int64s,
    length: Int32s,
    root: Int32s,
    tail: Int32s,
    perm: Int32s,
    lcp: Int32s,
    following: Int64s,
    other_perm: Int32s,
    other_lcp: Int32s,
    other_following: Int64s,
    first: int,
    last: int,
    rounds: int,
) -> None:
    """Sort the strings first..last-1 into one run, by merging `rounds` times: 2**rounds >= last - first.

    The run lands in the first columns where `rounds` is even, else in the other ones.
    """
    for place in range(first, last):
        perm[place], lcp[place], following[place] = place, -1, root[place]
    width = 1
    for _ in range(rounds):
        for left in range(first, last, 2 * width):
            middle, end = min(left + width, last), min(left + 2 * width, last)
            # fmt: off
            merge(units, begin, length, root, tail, perm, lcp, following, other_perm, other_lcp, other_following,
                  left, middle, middle, end, left)
            # fmt: on
        perm, other_perm = other_perm, perm
        lcp, other_lcp = other_lcp, lcp
        following, other_following = other_following, following
        width *= 2


@compiled(*_STRINGS, *_RUNS, *_RUNS, I64, I64, I64, I64, I64)
def merge_runs(
    units: Int32s,
    begin: Int64s,
    length: Int32s,
    root: Int32s,
    tail: Int32s,
    perm: Int32s,
    lcp: Int32s,
    following: Int64s,
    to_perm: Int32s,
    to_lcp: Int32s,
    to_following: Int64s,
    a: int,
    a_end: int,
    b: int,
    b_end: int,
    out: int,
) -> None:
    """`merge` as a kernel."""
    # fmt: off
    merge(units, begin, length, root, tail, perm, lcp, following, to_perm, to_lcp, to_following,
          a, a_end, b, b_end, out)
    # fmt: on


@compiled(*_STRINGS, *_RUNS, I64)
def join_pieces(
    units: Int32s,
    begin: Int64s,
    length: Int32s,
    root: Int32s,
    tail: Int32s,
    perm: Int32s,
    lcp: Int32s,
    following: Int64s,
    place: int,
) -> None:
    """Compare the string at `place` with the one before it, where the merges of two pieces of one run meet."""
    x, y = perm[place - 1], perm[place]
    if root[x] != root[y]:
        lcp[place], following[place] = -1, root[y]
        return
    k = common_units(units, begin[x], begin[y], 0, min(length[x], length[y]))
    lcp[place], following[place] = k, unit_at(units, begin[y], length[y], k)


@compiled(*_STRINGS, I32_IN, I64, I64, I64)
def lower_bound(
    units: Int32s,
    begin: Int64s,
    length: Int32s,
    root: Int32s,
    tail: Int32s,
    perm: Int32s,
    low: int,
    high: int,
    pivot: int,
) -> int:
    """First place in the run perm[low:high] whose string is not before the string numbered `pivot`."""
    while low < high:
        middle = (low + high) // 2
        x = perm[middle]
        if root[x] != root[pivot]:
            before = root[x] < root[pivot]
        else:
            k = common_units(units, begin[x], begin[pivot], 0, min(length[x], length[pivot]))
            u = unit_at(units, begin[x], length[x], k)
            v = unit_at(units, begin[pivot], length[pivot], k)
            before = u < v or (u == v and tail[x] < tail[pivot])
        if before:
            low = middle + 1
        else:
            high = middle
    return low
