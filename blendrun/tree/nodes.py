"""The loops of `build`: from what sorted prompts share with their neighbours to nodes in preorder."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from blendrun.tree.compiled import I32_IN, I32_OUT, compiled

Int32s = NDArray[np.int32]


@compiled(I32_IN, I32_IN, I32_OUT, I32_OUT, I32_OUT, I32_OUT)
def open_nodes(
    shared: Int32s, tokens: Int32s, depth: Int32s, leaf_begin: Int32s, leaf_end: Int32s, leaf: Int32s
) -> int:
    """Write depth and leaf range of every node, in preorder, to the end of the arrays; returns where they begin.

    shared, tokens, leaf: i32 (M,), in sorted order; depth, leaf_begin, leaf_end: i32 (2 M + 1,).

    Goes through the prompts from the last to the first. A range of prompts that share a prefix begins where its
    first prompt shares less with the one before, so its node is known just after all nodes in it: reversed preorder.
    """
    count = len(shared)
    open_depth, open_end = np.empty(count + 1, np.int32), np.empty(count + 1, np.int32)
    open_depth[0], open_end[0] = 0, count
    top = 0
    node = len(depth)
    for place in range(count - 1, -1, -1):
        node -= 1
        depth[node], leaf_begin[node], leaf_end[node] = tokens[place], place, place + 1
        leaf[place] = node
        end = place + 1
        while open_depth[top] > shared[place]:
            node -= 1
            end = open_end[top]
            depth[node], leaf_begin[node], leaf_end[node] = open_depth[top], place, end
            top -= 1
        if shared[place] > open_depth[top]:
            top += 1
            open_depth[top], open_end[top] = shared[place], end
    node -= 1
    depth[node], leaf_begin[node], leaf_end[node] = 0, 0, count
    return node


@compiled(I32_IN, I32_IN, I32_IN, I32_IN, I32_OUT, I32_OUT, I32_OUT)
def close_nodes(
    depth: Int32s, leaf_begin: Int32s, leaf_end: Int32s, leaf: Int32s, parent: Int32s, start: Int32s, end: Int32s
) -> None:
    """Write parent, start and end of every node. All but `leaf` (i32 (M,)) are i32 (K,), in preorder."""
    count = len(depth)
    path = np.empty(count, np.int32)
    path[0] = 0
    parent[0], start[0], end[0] = -1, 0, count
    top = 0
    for node in range(1, count):
        while leaf_end[path[top]] <= leaf_begin[node]:
            end[path[top]] = node
            top -= 1
        parent[node], start[node] = path[top], depth[path[top]]
        if leaf[leaf_begin[node]] == node:
            end[node] = node + 1
        else:
            top += 1
            path[top] = node
    while top > 0:
        end[path[top]] = count
        top -= 1
