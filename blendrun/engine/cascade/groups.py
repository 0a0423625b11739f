"""Which rows of a decode batch share what: groups of rows that begin with the same slots of the cache. Pure numbers.

A cascade of two levels reads the common prefix of a group once, and the rest of each row by itself. Prefixes are nested
(a system prompt, a document, a conversation), so the rows are cut where most reading is saved: at each common prefix
either all rows behind it are one group, or the groups of what comes behind it stand alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """rows: i64 (R,), rows of the batch, a group's next to each other. first: i64 (G + 1,), where each group begins in
    `rows`, and R. shared: i64 (G,), slots that all of a group begin with, 1 or more (a row alone shares with itself).
    """

    rows: NDArray[np.int64]
    first: NDArray[np.int64]
    shared: NDArray[np.int64]

    @property
    def spared(self) -> int:
        """Slots that a step need not read."""
        return int(((np.diff(self.first) - 1) * self.shared).sum())


def groups_of(slots: Sequence[NDArray[np.int32]], least: int) -> Groups:
    """The groups that spare most, with prefixes of `least` slots or more.

    slots: of each row, in the order of its tokens, 2 or more: all but the last may be shared, which is the row's own.
    """
    if any(len(each) < 2 for each in slots):
        raise ValueError("a row that decodes has a slot that it reads and one that it writes")
    # As text of bytes, the highest first, rows with a common beginning stand together.
    keys = [np.ascontiguousarray(each[:-1], dtype=">i4").tobytes() for each in slots]
    order = sorted(range(len(slots)), key=keys.__getitem__)
    common = [_common(slots[one][:-1], slots[other][:-1]) for one, other in pairwise(order)]
    cuts = _best_cuts(common, max(least, 1))
    first = np.array([begin for begin, _ in cuts] + [len(order)], dtype=np.int64)
    shared = np.array([max(depth, 1) for _, depth in cuts], dtype=np.int64)
    return Groups(np.array(order, dtype=np.int64), first, shared)


def _common(one: NDArray[np.int32], other: NDArray[np.int32]) -> int:
    """Slots that both begin with."""
    length = min(len(one), len(other))
    differ = np.flatnonzero(one[:length] != other[:length])
    return int(differ[0]) if len(differ) else length


def _best_cuts(common: Sequence[int], least: int) -> list[tuple[int, int]]:
    """(where it begins, slots shared) of each group. common: slots that each row shares with the one before.

    One pass over the tree of common prefixes that a sorted row of rows is, deepest first: what is on the stack are
    prefixes that the last row has, each with what was best behind it so far.
    """
    # Of each: depth, first row, slots spared by the groups behind it, these groups.
    stack: list[tuple[int, int, int, list[tuple[int, int]]]] = []
    for row in range(len(common) + 1):
        depth = common[row] if row < len(common) else 0
        begin, spared, cuts = row, 0, [(row, 0)]
        while stack and stack[-1][0] > depth:
            above, begin, before, earlier = stack.pop()
            spared, cuts = before + spared, earlier + cuts
            whole = (row - begin) * above if above >= least else 0
            if whole > spared:
                spared, cuts = whole, [(begin, above)]
        if stack and stack[-1][0] == depth:
            _, begin, before, earlier = stack.pop()
            spared, cuts = before + spared, earlier + cuts
        stack.append((depth, begin, spared, cuts))
    return [cut for _, _, _, cuts in stack for cut in cuts]
