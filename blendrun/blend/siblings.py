"""The tree with its children sorted: where the leaves of each node's sub-tree then stand."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendrun.blend.stable import stable_order
from blendrun.tree.base import PrefixTree
from blendrun.tree.compiled import I64_IN, compiled

# leaves: of its sub-tree. place: its first leaf's. taken: leaves of its children that have a place.
_NODE = np.dtype([("parent", "i4"), ("leaves", "i4"), ("place", "i4"), ("taken", "i4")])


def sorted_positions(tree: PrefixTree, density: NDArray[np.float64]) -> NDArray[np.int32]:
    """First leaf place of each node when the children of every node stand by density, highest first (Algorithm 1).

    Ties keep the tree's order. i32 (K,).
    """
    nodes = np.empty(len(tree), dtype=_NODE)
    nodes["parent"] = tree.parent
    np.subtract(tree.leaf_end, tree.leaf_begin, out=nodes["leaves"])
    nodes["place"] = nodes["taken"] = 0
    _place(nodes, stable_order(-density[1:]))
    return np.ascontiguousarray(nodes["place"])


@compiled(_NODE, I64_IN)
def _place(nodes: NDArray[Any], order: NDArray[np.int64]) -> None:
    """order: i64 (K - 1,), siblings as they are to stand, each less 1, for the root is none."""
    for before in order:
        node = before + 1
        above = nodes[node].parent
        nodes[node].place = nodes[above].taken
        nodes[above].taken += nodes[node].leaves
    for node in range(1, len(nodes)):
        nodes[node].place += nodes[nodes[node].parent].place
