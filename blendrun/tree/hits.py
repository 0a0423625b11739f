"""What prefix caches save in a given order of the requests, one request at a time. An infinite one saves
`PrefixTree.shared_tokens` in any order."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendrun.tree.base import PrefixTree
from blendrun.tree.compiled import I32_IN, I32_OUT, I64, I64_IN, compiled, inlined
from blendrun.tree.shared import SharedPrefix

Int32s = NDArray[np.int32]


def path_hits(tree: PrefixTree, order: NDArray[Any], *, compute_last: bool = False) -> NDArray[np.int32]:
    """Tokens that each request finds in a cache that keeps the prompt of the request before, and nothing else.

    order: (n,), numbers of prompts in the order they are fed; any of them, repeats too.
    compute_last: the engine computes at least the last token of a prompt, so a hit is one token less than the prompt at
        most. Without it a hit may be the whole prompt.
    Result: i32 (n,), in the order fed; `.sum(dtype=np.int64)` is what the cache saves.
    """
    place = tree.position[np.asarray(order, dtype=np.int64)]
    hits = np.zeros(len(place), dtype=np.int32)
    hits[1:] = SharedPrefix(tree)(place[1:], place[:-1])
    return _capped(tree, place, hits) if compute_last else hits


def lru_hits(
    tree: PrefixTree, order: NDArray[Any], capacity_tokens: int, *, compute_last: bool = False
) -> NDArray[np.int32]:
    """Tokens that each request finds in a cache of `capacity_tokens` prompt tokens with least-recently-used eviction.

    Exact to the token: a hit is contiguous from the root; a request uses every token of its prompt and keeps it; what
    is too much is evicted, the least recently used token first, of those used by the same request the deepest first.
    A prompt longer than the cache leaves its first `capacity_tokens` tokens there. Outputs are not kept.

    Arguments and result as of `path_hits`.

    Time: the nodes on each prompt's path below the place where it parts from the prompt before. In depth-first order
    that is every node once; in any order at most the sum of all paths. This is quadratic only for deep chains (prompts
    each within the next) fed in scattered order or longer than the cache: 15 s for 100,000 of them.
    """
    place = np.ascontiguousarray(tree.position[np.asarray(order, dtype=np.int64)])
    hits = np.empty(len(place), dtype=np.int32)
    lru(
        tree.parent,
        tree.start,
        tree.depth,
        tree.leaf_begin,
        tree.leaf_end,
        tree.leaf,
        place,
        max(int(capacity_tokens), 0),
        hits,
    )
    return _capped(tree, place, hits) if compute_last else hits


def _capped(tree: PrefixTree, place: NDArray[np.int64], hits: Int32s) -> Int32s:
    capped: Int32s = np.minimum(hits, np.maximum(tree.depth[tree.leaf[place]] - 1, 0))
    return capped


@inlined
def put_before(newer: Int32s, older: Int32s, node: int, anchor: int) -> None:
    """Put a node into the ring as the next older one of `anchor`."""
    before = older[anchor]
    newer[before], older[node] = node, before
    newer[node], older[anchor] = anchor, node


@inlined
def take_out(newer: Int32s, older: Int32s, node: int) -> None:
    newer[older[node]] = newer[node]
    older[newer[node]] = older[node]


@compiled(I32_IN, I32_IN, I32_IN, I32_IN, I32_IN, I32_IN, I64_IN, I64, I32_OUT)
def lru(
    parent: Int32s,
    start: Int32s,
    depth: Int32s,
    leaf_begin: Int32s,
    leaf_end: Int32s,
    leaf: Int32s,
    place: NDArray[np.int64],
    capacity: int,
    hits: Int32s,
) -> None:
    """`lru_hits` of the leaves at `place` (i64 (n,)), into `hits` (i32 (n,)).

    Nodes with cached tokens form a ring by age that ends in a sentinel; a parent is always newer than its children, so
    the oldest node has no cached child. What the request before has used is newest, in this order already, so a walk up
    from the leaf ends at the first such node, and all that was walked goes in just behind it.
    """
    sentinel = len(parent)
    newer, older = np.empty(sentinel + 1, np.int32), np.empty(sentinel + 1, np.int32)
    newer[sentinel], older[sentinel] = sentinel, sentinel
    cached = np.zeros(sentinel, np.int32)
    total = 0
    before = -1
    for request in range(len(place)):
        last = leaf[place[request]]
        hit = depth[last]
        top = last
        while top > 0:
            own = depth[top] - start[top]
            # The root and leaves with empty segments hold nothing, so they do not tell whether those above are cached.
            if own > 0 and cached[top] == own and leaf_begin[top] <= before < leaf_end[top]:
                break
            if cached[top] < own:
                hit = start[top] + cached[top]
            top = parent[top]
        hits[request] = hit
        before = place[request]
        anchor = top if top > 0 else sentinel
        node = last
        while node != top:
            own = depth[node] - start[node]
            if own > 0:
                if cached[node] > 0:
                    take_out(newer, older, node)
                put_before(newer, older, node, anchor)
                total += own - cached[node]
                cached[node] = own
            node = parent[node]
        while total > capacity:
            oldest = newer[sentinel]
            gone = min(cached[oldest], total - capacity)
            total -= gone
            cached[oldest] -= gone
            if cached[oldest] == 0:
                take_out(newer, older, oldest)
