"""From prompts to a PrefixTree: sort them, compare neighbours, and open a node wherever prompts part."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from blendrun.errors import InputInvalidError
from blendrun.events import Listener, ignore
from blendrun.tree.base import PrefixTree
from blendrun.tree.nodes import close_nodes, open_nodes
from blendrun.tree.sort import Strings, sort_strings

if TYPE_CHECKING:
    from blendrun.tokens.base import Prompts

# Nodes are numbered in 32 bits, and M prompts have at most 2 M of them.
MAX_PROMPTS = 2**30 - 1


def build_tree(prompts: Prompts, listener: Listener = ignore) -> PrefixTree:
    """The exact radix tree of the prompts; the same prompts give the same arrays, however many threads there are.

    Prompts that share u units share u * unit_tokens tokens, but never more than either has: the last block of a trace's
    prompt may be partial, and is weighted by the tokens in it. A prompt without units shares nothing. Different `root`
    keys stand in the order of their first prompt.

    listener: told the progress of sorting, many times a second for a large job; the rest takes less.

    Time is near linear in the prompts and the tokens they share, memory about 120 bytes a prompt. The units are read in
    no order, so their file should fit the page cache.

    Raises InputInvalidError (more than MAX_PROMPTS prompts).
    """
    if len(prompts) > MAX_PROMPTS:
        raise InputInvalidError(f"{len(prompts):,} prompts are too many for one plan ({MAX_PROMPTS:,}); split the job")
    tokens = np.ascontiguousarray(prompts.prompt_tokens, dtype=np.int32)
    perm, lcp = sort_strings(strings(prompts), listener)
    return tree_of(perm, shared_tokens(tokens[perm], lcp, prompts.unit_tokens), tokens[perm])


def strings(prompts: Prompts) -> Strings:
    """What to sort. Units beyond a prompt's tokens are left out: they hold nothing."""
    needed = -(-prompts.prompt_tokens.astype(np.int64) // prompts.unit_tokens)
    length = np.minimum(np.diff(prompts.offsets), needed)
    return Strings(
        units=np.ascontiguousarray(np.asarray(prompts.units), dtype=np.int32),
        begin=np.ascontiguousarray(prompts.offsets[:-1], dtype=np.int64),
        length=length.astype(np.int32),
        root=_ranks(prompts.root),
        # Tokens that the units account for: none without units, so that such prompts keep their order.
        tail=np.minimum(length * prompts.unit_tokens, prompts.prompt_tokens).astype(np.int32),
    )


def shared_tokens(tokens: NDArray[np.int32], lcp: NDArray[np.int32], unit_tokens: int) -> NDArray[np.int32]:
    """Tokens shared with the prompt before: i32 (M,). tokens: i32 (M,), sorted prompts; lcp: i32 (M,), their units."""
    shared = np.maximum(lcp, 0).astype(np.int64) * unit_tokens
    np.minimum(shared, tokens, out=shared)
    np.minimum(shared[1:], tokens[:-1], out=shared[1:])
    return shared.astype(np.int32)


def tree_of(perm: NDArray[np.int32], shared: NDArray[np.int32], tokens: NDArray[np.int32]) -> PrefixTree:
    """The tree over sorted prompts. perm: i32 (M,), their numbers; shared, tokens: i32 (M,), in sorted order."""
    count = len(perm)
    depth, begin, end, leaf = (
        np.empty(size, np.int32) for size in (2 * count + 1, 2 * count + 1, 2 * count + 1, count)
    )
    first = open_nodes(shared, tokens, depth, begin, end, leaf)
    # Opened from the last to the first, so they lie at the end of arrays made for the most there can be.
    depth, begin, end = depth[first:].copy(), begin[first:].copy(), end[first:].copy()
    leaf -= np.int32(first)
    parent, start, last = (np.empty_like(depth) for _ in range(3))
    close_nodes(depth, begin, end, leaf, parent, start, last)
    return PrefixTree(
        parent=parent,
        end=last,
        start=start,
        depth=depth,
        leaf_begin=begin,
        leaf_end=end,
        leaf=leaf,
        prompt=perm.astype(np.int64),
        shared=shared,
    )


def _ranks(root: NDArray[np.uint64]) -> NDArray[np.int32]:
    """Root keys as 0, 1, ... in the order of their first prompt: i32 (M,)."""
    if len(root) == 0 or (root == root[0]).all():
        return np.zeros(len(root), dtype=np.int32)
    _, first, which = np.unique(root, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int32)
    rank[np.argsort(first)] = np.arange(len(first), dtype=np.int32)
    return rank[which]
