"""The tree of some of a tree's prompts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from blendrun.tree.base import PrefixTree
from blendrun.tree.build import tree_of


def restrict(tree: PrefixTree, prompts: NDArray[np.int64]) -> PrefixTree:
    """The tree that `build_tree` makes of these prompts alone, without reading any.

    prompts: i64 (n,), ascending numbers of prompts, each once; they are 0..n-1 in the new tree.
    """
    number = np.full(tree.prompts, -1, dtype=np.int64)
    number[prompts] = np.arange(len(prompts))
    kept = np.flatnonzero(number[tree.prompt] >= 0)
    if not len(kept):
        nothing = np.zeros(0, dtype=np.int32)
        return tree_of(nothing, nothing, nothing)
    # Two leaves share the least of what neighbours between them share.
    shared = np.minimum.reduceat(np.append(tree.shared, np.int32(0)), _gaps(kept))[::2]
    shared[0] = 0
    return tree_of(
        number[tree.prompt[kept]].astype(np.int32),
        np.ascontiguousarray(shared, dtype=np.int32),
        np.ascontiguousarray(tree.depth[tree.leaf[kept]]),
    )


def _gaps(kept: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bounds for `reduceat`: the leaves behind each kept one's kept neighbour, up to itself."""
    begin = np.concatenate(([0], kept[:-1] + 1))
    return np.stack((begin, kept + 1), axis=1).reshape(-1)
