"""The shared prefixes that matter most, for people to look at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from blendrun.tree.base import PrefixTree


@dataclass(frozen=True, slots=True)
class HeavyPrefix:
    """One shared prefix.

    node: its node in the tree. above: place of the nearest prefix above it in the same list, -1 where none.
    level: how many prefixes of the list are above it, for indentation.
    depth: tokens from the root to its end. segment: those behind the parent node, which this row is about.
    requests: prompts that have it. saved: (requests - 1) * segment, tokens that an infinite cache saves here.
    example: the number of the first of these prompts in depth-first order.
    """

    node: int
    above: int
    level: int
    depth: int
    segment: int
    requests: int
    saved: int
    example: int


def heaviest_prefixes(tree: PrefixTree, limit: int = 20) -> list[HeavyPrefix]:
    """The `limit` nodes that save most tokens, in depth-first order, so that a list indented by `level` is a tree view.

    Nodes that save nothing are left out. Of equal nodes the first in depth-first order is taken.
    """
    requests = (tree.leaf_end - tree.leaf_begin).astype(np.int64)
    saved = np.maximum(requests - 1, 0) * tree.segment
    # Stable, so that the choice among equals is the same every time.
    heavy = np.sort(np.argsort(-saved, kind="stable")[: max(limit, 0)])
    rows: list[HeavyPrefix] = []
    path: list[int] = []
    for node in heavy[saved[heavy] > 0].tolist():
        while path and tree.end[rows[path[-1]].node] <= node:
            path.pop()
        above = path[-1] if path else -1
        path.append(len(rows))
        rows.append(
            HeavyPrefix(
                node=node,
                above=above,
                level=len(path) - 1,
                depth=int(tree.depth[node]),
                segment=int(tree.segment[node]),
                requests=int(requests[node]),
                saved=int(saved[node]),
                example=int(tree.prompt[tree.leaf_begin[node]]),
            )
        )
    return rows
