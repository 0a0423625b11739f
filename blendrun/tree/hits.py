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

# A node and what the cache has of it, half a line of the processor's cache: nodes are looked up all over memory.
_COLUMNS = ("parent", "start", "depth", "leaf_begin", "leaf_end", "cached", "newer", "older")
_NODE = np.dtype([(name, "i4") for name in _COLUMNS])


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
    nodes = np.zeros(len(tree) + 1, dtype=_NODE)
    for name in ("parent", "start", "depth", "leaf_begin", "leaf_end"):
        nodes[name][:-1] = getattr(tree, name)
    nodes["newer"], nodes["older"] = len(tree), len(tree)
    lru(nodes, tree.leaf[place], place, max(int(capacity_tokens), 0), hits)
    return _capped(tree, place, hits) if compute_last else hits


def _capped(tree: PrefixTree, place: NDArray[np.int64], hits: Int32s) -> Int32s:
    capped: Int32s = np.minimum(hits, np.maximum(tree.depth[tree.leaf[place]] - 1, 0))
    return capped


@inlined
def put_before(nodes: Any, node: int, anchor: int) -> None:
    """Put a node into the ring as the next older one of `anchor`."""
    before = nodes[anchor].older
    nodes[before].newer, nodes[node].older = node, before
    nodes[node].newer, nodes[anchor].older = anchor, node


@inlined
def take_out(nodes: Any, node: int) -> None:
    newer, older = nodes[node].newer, nodes[node].older
    nodes[older].newer, nodes[newer].older = newer, older


@compiled(_NODE, I32_IN, I64_IN, I64, I32_OUT)
def lru(nodes: NDArray[np.void], leaf: Int32s, place: NDArray[np.int64], capacity: int, hits: Int32s) -> None:
    """`lru_hits` of leaves in the order fed, by node (i32 (n,)) and place (i64 (n,)), into `hits` (i32 (n,)).

    Nodes with cached tokens form a ring by age that ends in a sentinel, the last of `nodes`; a parent is always newer
    than its children, so the oldest node has no cached child. What the request before has used is newest, in this order
    already, so a walk up from the leaf ends at the first such node, and all that was walked goes in just behind it.
    """
    sentinel = len(nodes) - 1
    total = 0
    before = -1
    for request in range(len(place)):
        last = leaf[request]
        hit = nodes[last].depth
        top = last
        while top > 0:
            own = nodes[top].depth - nodes[top].start
            # The root and leaves with empty segments hold nothing, so they do not tell whether those above are cached.
            if own > 0 and nodes[top].cached == own and nodes[top].leaf_begin <= before < nodes[top].leaf_end:
                break
            if nodes[top].cached < own:
                hit = nodes[top].start + nodes[top].cached
            top = nodes[top].parent
        hits[request] = hit
        before = place[request]
        anchor = top if top > 0 else sentinel
        node = last
        while node != top:
            own = nodes[node].depth - nodes[node].start
            if own > 0:
                if nodes[node].cached > 0:
                    take_out(nodes, node)
                put_before(nodes, node, anchor)
                total += own - nodes[node].cached
                nodes[node].cached = own
            node = nodes[node].parent
        while total > capacity:
            oldest = nodes[sentinel].newer
            gone = min(nodes[oldest].cached, total - capacity)
            total -= gone
            nodes[oldest].cached -= gone
            if nodes[oldest].cached == 0:
                take_out(nodes, oldest)
