"""How answers below a place in the prefix tree differ from what their kinds would let expect."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from blendrun.tree.base import PrefixTree

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

SHRINKAGE = 4.0
"""Samples that the estimate above a sub-tree counts for. From `scripts/bench/lengths.py`, over five workloads with
published answers: k hardly matters where sub-trees are alike. In instruct-mix, where they are not, with a tenth of the
answers seen, rank correlation is 0.41 at k = 4, 0.36 at 8, 0.26 at 32, and the error of the total 6, 6 and 9 %.
With one per cent seen, k = 2 believes it too much (error 20 %, against 15 % at k = 4)."""


@dataclass(frozen=True, slots=True, eq=False)
class _Levels:
    """The L nodes of the tree that get an estimate of their own, root first, each after the one above it.

    rung: i64 (L,), `_rungs` of count, falling. above: i64 (L,), the nearest level that holds it; 0 for the root.
    count: i64 (L,), samples below. found: f64 (L, Q), their sum. of: i64 (M,), deepest level of each leaf.
    """

    rung: Indices
    above: Indices
    count: Indices
    found: Floats
    of: Indices


def subtree_factors(tree: PrefixTree, place: Indices, ratio: Floats, shrinkage: float = SHRINKAGE) -> Floats:
    """What to multiply the estimate of each prompt's kind with: f64 (M, Q), by place in depth-first order.

    place: i64 (S,), leaf of each sample, in depth-first order; S >= 1. ratio: f64 (S, Q), Q statistics of each sample
    (d, d^2), each divided by what its kind lets expect.

    Going down from the root, whose factor is 1: factor(node) = (n * mean ratio + k * factor(above)) / (n + k), with n
    the samples below the node and k the shrinkage (empirical Bayes;
    docs/paper.md#sub-trees-borrow-from-those-above).

    What stands above is not always the parent. Sub-trees with fewer than k samples, and those with none, take the
    pooled estimate of their like: of all samples below the parent that are in no sub-tree of k samples or more, itself
    shrunk to the parent's. Large sub-trees come from one template, and say little of the odd requests between them: in
    instruct-mix these have answers five times as long, and with the parent's mean for them the total was 20 % short.

    Not every node is a level: a child with nearly all samples of its parent says the same again, and would be believed
    again. A node counts where n is on a lower rung of a ladder (`_rungs`) than at its parent. That leaves some
    7 log2 S levels at most on any path, however deep the tree: the time is O(K + S log S + M log S).
    """
    levels = _levels(tree, place, ratio)
    large = levels.count >= shrinkage
    large[0] = False  # the root is in nothing
    among = np.bincount(levels.above, large * levels.count, len(large))
    rest = levels.count - among
    rest_found = levels.found.copy()
    np.subtract.at(rest_found, levels.above[large], levels.found[large])
    pooled = (rest > 0) & (_rungs(rest) < levels.rung)

    factor = np.ones_like(levels.found)
    others = np.ones_like(levels.found)
    # The root has a rung of its own: no other level has as many samples.
    borders = np.flatnonzero(np.diff(levels.rung, prepend=-1, append=-1))
    for begin, end in pairwise(borders):
        rung = slice(begin, end)
        if begin:
            above = levels.above[rung]
            prior = np.where(large[rung, None], factor[above], others[above])
            factor[rung] = (levels.found[rung] + shrinkage * prior) / (levels.count[rung, None] + shrinkage)
        apart = (rest_found[rung] + shrinkage * factor[rung]) / (rest[rung, None] + shrinkage)
        others[rung] = np.where(pooled[rung, None], apart, factor[rung])
    return others[levels.of]


def _levels(tree: PrefixTree, place: Indices, ratio: Floats) -> _Levels:
    count = np.concatenate(([0], np.cumsum(np.bincount(place, minlength=tree.prompts))))
    below = count[tree.leaf_end] - count[tree.leaf_begin]
    rungs = _rungs(below)
    node = np.flatnonzero((rungs > 0) & (rungs < rungs[tree.parent]) & (tree.parent >= 0))
    node = np.concatenate(([0], node[np.argsort(-rungs[node], kind="stable")]))
    begin, end = tree.leaf_begin[node].astype(np.int64), tree.leaf_end[node].astype(np.int64)
    running = np.zeros((len(place) + 1, ratio.shape[1]))
    np.cumsum(ratio[np.argsort(place, kind="stable")], axis=0, out=running[1:])
    above = np.zeros(len(node), dtype=np.int64)
    of = np.zeros(tree.prompts, dtype=np.int64)
    rung = rungs[node]
    for value in np.unique(rung[1:])[::-1]:
        # Nodes of one rung lie side by side, never one inside the other.
        level = np.flatnonzero(rung == value)
        above[level] = of[begin[level]]
        width = end[level] - begin[level]
        inside = np.arange(width.sum()) + np.repeat(begin[level] - np.cumsum(width) + width, width)
        of[inside] = np.repeat(level, width)
    return _Levels(rung, above, below[node], running[count[end]] - running[count[begin]], of)


def _rungs(count: Indices) -> Indices:
    """Rung of each number of samples on the ladder 1, 2, 4, 8, 12, ... 48, 52, 57, 62, ...; 0 below it.

    A step is four samples or a tenth, whichever is more: a child with nine tenths of its parent's samples must not hide
    how the last tenth differs, and where samples are few a step down must drop some, not believe the same ones again.
    """
    ladder = [1, 2, 4]
    while ladder[-1] <= count.max(initial=0):
        ladder.append(max(ladder[-1] + 4, ladder[-1] * 11 // 10))
    return np.searchsorted(np.array(ladder), count, side="right").astype(np.int64)
