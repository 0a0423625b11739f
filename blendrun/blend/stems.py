"""Where requests part below what is in use at any time: most neighbours of a row part there, and share no more."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendrun.tree.base import PrefixTree
from blendrun.tree.compiled import I32_IN, I32_OUT, I32_TABLE_IN, I64_IN, compiled
from blendrun.tree.shared import SharedPrefix, least_between

# Of a leaf: its stem, the node above that, prompt tokens above it, and tokens of the leaf in use at any time.
_LEAF = np.dtype([("stem", "i4"), ("parent", "i4"), ("start", "i4"), ("resident", "i4")])


class Stems:
    """The stem of every node: of those on its path that are not in use at any time the first one, or the node itself.

    Nodes of different stems share nothing beyond what is in use at any time.

    resident: i32 (K,), prompt tokens of each node's path in use at any time.
    of_node: i32 (K,).
    """

    def __init__(self, tree: PrefixTree, resident: NDArray[np.int32]) -> None:
        self.of_node: NDArray[np.int32] = _stems(tree.parent, tree.start, resident)
        self._prefix = SharedPrefix(tree)
        # Records, so that a row goes to memory once for each leaf and not once for each column.
        self._leaves = np.empty(tree.prompts, dtype=_LEAF)
        stem = self.of_node[tree.leaf]
        self._leaves["stem"], self._leaves["parent"] = stem, tree.parent[stem]
        self._leaves["start"], self._leaves["resident"] = tree.start[stem], resident[tree.leaf]

    @property
    def columns(self) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
        """What `least_between` takes."""
        return self._prefix.columns

    @property
    def resident(self) -> NDArray[np.int32]:
        """Prompt tokens of each leaf in use at any time: i32 (M,)."""
        return np.ascontiguousarray(self._leaves["resident"])

    def beside(self, leaf: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Tokens that each leaf of a row shares with the one before it, 0 for the first, and those of it in use at any
        time: i32 (n,) each. leaf: i64 (n,), places in depth-first order."""
        row = self._leaves[leaf]
        shared = np.zeros(len(leaf), dtype=np.int32)
        _share_with_the_one_before(row, leaf, *self.columns, shared)
        return shared, np.ascontiguousarray(row["resident"])


@compiled(I32_IN, I32_IN, I32_IN)
def _stems(
    parent: NDArray[np.int32], start: NDArray[np.int32], always_resident: NDArray[np.int32]
) -> NDArray[np.int32]:
    stem = np.arange(len(parent)).astype(np.int32)
    for node in range(1, len(parent)):
        if start[node] > always_resident[node]:
            stem[node] = stem[parent[node]]
    return stem


@compiled(_LEAF, I64_IN, I32_IN, I32_IN, I32_TABLE_IN, I32_TABLE_IN, I32_OUT)
def _share_with_the_one_before(
    row: NDArray[Any],
    leaf: NDArray[np.int64],
    shared: NDArray[np.int32],
    length: NDArray[np.int32],
    sides: NDArray[np.int32],
    table: NDArray[np.int32],
    result: NDArray[np.int32],
) -> None:
    for place in range(1, len(leaf)):
        one, other = row[place - 1], row[place]
        if one.parent == other.parent and one.stem != other.stem:
            # They part at that parent, and nothing else need be looked at.
            result[place] = other.start
        else:
            low, high = min(leaf[place - 1], leaf[place]), max(leaf[place - 1], leaf[place])
            result[place] = least_between(shared, length, sides, table, low, high)
