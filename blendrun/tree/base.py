"""The PrefixTree: a radix tree of M prompts as arrays in depth-first order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class PrefixTree:
    """K nodes in preorder (node 0 is the root, a parent comes before its children), M leaves, one for each prompt.

    Inner nodes are the places where prompts part, or where one ends inside another; every prompt has a leaf of its own,
    with an empty segment where it is a prefix or a copy of another. Children of a node stand in lexicographic order of
    their units, equal prompts in input order. Prompts of different `root` keys part at depth 0 and share nothing.
    A sub-tree is the node range [node, end[node]) and the leaf range [leaf_begin[node], leaf_end[node]), so its sums
    are differences of prefix sums (`subtree_sum`).

    parent: i32 (K,), -1 for the root.
    end: i32 (K,), one past the last node of the sub-tree.
    start: i32 (K,), prompt tokens above the node's own segment: the parent's depth, 0 for the root.
    depth: i32 (K,), prompt tokens from the root to the end of the segment; of a leaf, the prompt's length.
    leaf_begin, leaf_end: i32 (K,), the sub-tree's range in `leaf` and `prompt`.
    leaf: i32 (M,), node of each leaf, in depth-first order.
    prompt: i64 (M,), number (0..M-1, input order) of the prompt of each leaf, in depth-first order.
    shared: i32 (M,), tokens that the prompt of each leaf shares with the leaf before it in depth-first order; 0 for the
        first. Their sum is what an infinite prefix cache saves, in any order of the requests.
    """

    parent: NDArray[np.int32]
    end: NDArray[np.int32]
    start: NDArray[np.int32]
    depth: NDArray[np.int32]
    leaf_begin: NDArray[np.int32]
    leaf_end: NDArray[np.int32]
    leaf: NDArray[np.int32]
    prompt: NDArray[np.int64]
    shared: NDArray[np.int32]

    def __len__(self) -> int:
        """Nodes."""
        return len(self.parent)

    @property
    def prompts(self) -> int:
        """M, the number of prompts."""
        return len(self.prompt)

    @property
    def segment(self) -> NDArray[np.int32]:
        """Tokens of each node's own segment: i32 (K,). Their sum is the job's distinct prompt tokens."""
        return self.depth - self.start

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts, shared ones counted each time."""
        return int(self.depth[self.leaf].sum(dtype=np.int64))

    @property
    def shared_tokens(self) -> int:
        """Tokens that an infinite prefix cache saves."""
        return int(self.shared.sum(dtype=np.int64))

    @property
    def position(self) -> NDArray[np.int64]:
        """Place in depth-first order of each prompt: i64 (M,), the inverse of `prompt`."""
        place = np.empty(self.prompts, dtype=np.int64)
        place[self.prompt] = np.arange(self.prompts)
        return place

    def subtree_sum(self, own: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum over each node's sub-tree of a value that each node has on its own. own, result: f64 (K,)."""
        running = np.concatenate(([0.0], np.cumsum(own)))
        total: NDArray[np.float64] = running[self.end] - running[:-1]
        return total
