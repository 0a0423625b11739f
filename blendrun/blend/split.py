"""Layer-wise sort and node split: the job as a row of units, from the most compute-heavy to the most memory-heavy.

A unit is a sub-tree that is fed as a whole. Few large units keep all sharing, but mix light and heavy requests inside;
many small ones sort finely, but recompute the prefixes they were cut from. Paper: Algorithms 1 and 2
(docs/paper.md#sorting-and-splitting), but leaves are emitted too (docs/paper.md#splitting-keeps-every-leaf). Where the
paper re-sorts and splits until nothing changes, every node's critical threshold is computed once here, and the largest
threshold that keeps enough sharing is searched: the result is that of the loop, without the loop.

A prefix under which something runs at any time is cached at any time, whatever the order: cutting it costs nothing. So
a chat template that all requests begin with holds no unit together
(docs/paper.md#prefixes-in-constant-use-cost-nothing).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from blendrun.blend.pieces import PIECE, Pieces
from blendrun.blend.siblings import sorted_positions
from blendrun.blend.stable import stable_order
from blendrun.blend.stems import Stems
from blendrun.cost.balance import path_sum
from blendrun.tree.base import PrefixTree
from blendrun.tree.compiled import BOOL_IN, F64_IN, I32_IN, compiled

# A sub-tree whose leaves' densities differ by less than this factor is not cut: nothing would be sorted by it.
_ALIKE = 1.25
# So many requests of a node running in the mean, and the chance that none does is below 2 % (Poisson).
_EVER_USED = 4.0
_TINY = 1e-30
# Densities that differ by less than a millionth are alike.
_FINE = 2.0**20
_SEED = 0
# Of a unit's place by chance within its half of the job, so much is its density's: in the denser half, in the other.
# From `scripts/bench/short.py`, on its jobs to tune on.
_LEANS = 0.9, 0.25


@dataclass(frozen=True, slots=True, eq=False)
class UnitRow:
    """M leaves in the order of the blend's two ends: the left one reads it forwards, the right one backwards.

    leaf: i64 (M,), depth-first positions of the tree's leaves.
    first: i64 (U + 1,), unit u is leaf[first[u]:first[u + 1]].
    alike: i64 (U,), ascending: units of one number stand by chance and are taken for one kind; each its own if sorted.
    shared: i32 (M,), tokens that each leaf shares with the one before it in this row; 0 for the first.
    always_resident: i32 (M,), prefix tokens of each leaf that some running request holds at any time.
    kept: of the tree's shared tokens, those that are ever in use or shared by neighbours; 1 where nothing is shared.
    threshold: tokens; nodes whose split costs no more were cut.
    """

    leaf: NDArray[np.int64]
    first: NDArray[np.int64]
    alike: NDArray[np.int64]
    shared: NDArray[np.int32]
    always_resident: NDArray[np.int32]
    kept: float
    threshold: float

    @property
    def units(self) -> int:
        return len(self.first) - 1


class Splitter:
    """One tree, its costs, and the thresholds at which its nodes are cut: what all rows of a job start from.

    compute, memory: f64 (K,), each node's own seconds at the machine's rates.
    running: f64 (K,), requests below each node that run at once in the mean, if spread over the whole job.
    """

    def __init__(
        self,
        tree: PrefixTree,
        compute: NDArray[np.float64],
        memory: NDArray[np.float64],
        running: NDArray[np.float64],
    ) -> None:
        self._tree = tree
        # In use at any time: a part of the tree that has the root and, with any node, the path to it.
        ever_used = running >= _EVER_USED
        segment = (tree.segment * ever_used).astype(np.float64)
        self._resident = np.rint(path_sum(tree, segment) + segment).astype(np.int32)
        self._stems = Stems(tree, self._resident)
        total_compute, total_memory = tree.subtree_sum(compute), tree.subtree_sum(memory)
        # A unit visited alone computes the path above it too.
        alone = total_compute + path_sum(tree, np.where(ever_used, 0.0, compute))
        # What units stand by, and siblings in a unit.
        self._alone, self._together = _log_ratio(alone, total_memory), _log_ratio(total_compute, total_memory)
        del alone, total_compute, total_memory
        alike = _alike(tree, _log_ratio(compute, memory))
        critical = _critical_thresholds(tree, tree.depth - self._resident, alike)
        self._thresholds: NDArray[np.float64] = np.unique(critical[np.isfinite(critical)])
        self._pieces = self._found_at(np.searchsorted(self._thresholds, critical).astype(np.int32))

    def arrange(self, *, keep: float = 0.99, scattered: bool = False) -> UnitRow:
        """Cut the tree as finely as `keep` of its sharing allows, and sort the pieces by density, the highest first.

        keep: share of the tree's shared tokens that the row must still share, 0 to 1.
        scattered: sort the pieces only into those denser than the job and the rest, and by chance within both. Then
            both ends are nearly alike from the first step to the last, and requests of many lengths stand together,
            which fill a pool more evenly than requests of one length do: those grow and end together. Chance leans
            towards density: long answers come early more often than late, as behind one that begins late nothing fills
            the machine.
        """
        rank, beside, half = self._alone, self._together, None
        if scattered:
            half = rank < beside[0]
            beside = _leaning_chance(rank, half)
            rank = beside - half
        pieces = self._pieces.put(stable_order(-rank[self._pieces.records["node"]]))
        found = self._finest(pieces, keep)
        units = pieces.units(found)
        threshold = float(self._thresholds[found]) if len(self._thresholds) else 0.0
        del pieces
        units = units if len(units) else np.zeros(1, dtype=np.int32)
        return self._row(units, sorted_positions(self._tree, beside), half, threshold)

    def _finest(self, pieces: Pieces, keep: float) -> int:
        """Number of the largest threshold that keeps enough. Binary search over those at which something changes."""
        wanted = keep * self._tree.shared_tokens - self._kept_anyway
        # Below the first one only the root is cut, which costs nothing.
        low, high, found = 0, len(self._thresholds), 0
        while low < high:
            middle = (low + high) // 2
            if pieces.kept_tokens(middle, self._stems) >= wanted:
                found, low = middle, middle + 1
            else:
                high = middle
        return found

    def _found_at(self, cut: NDArray[np.int32]) -> Pieces:
        """What may be a unit at one of the thresholds. cut: i32 (K,), number of the first at which a node is cut."""
        tree = self._tree
        # The root's parent is -1: it is a unit only where it has no children.
        node = np.flatnonzero(cut[tree.parent[1:]] < cut[1:]) + 1
        head = tree.leaf_begin[node]
        records = np.empty(len(node), dtype=PIECE)
        records["node"] = node
        records["cut"] = cut[node]
        records["cut_above"] = cut[tree.parent[node]]
        records["stem"] = self._stems.of_node[node]
        records["head"] = head
        records["resident"] = self._stems.resident[head]
        records["inside"] = self._shared_inside(node)
        return Pieces(records)

    def _shared_inside(self, node: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens beyond those in use at any time that each node's sub-tree saves when it is fed as a whole."""
        tree = self._tree
        depths = _running_sum(tree.depth[tree.leaf] - self._stems.resident)
        saved: NDArray[np.int64] = depths[tree.leaf_end[node]] - depths[tree.leaf_begin[node]]
        segments = _running_sum(np.where(tree.depth > self._resident, tree.segment, 0))
        saved -= segments[tree.end[node]] - segments[node]
        saved -= np.maximum(tree.start[node] - self._resident[node], 0)
        return saved

    @cached_property
    def _kept_anyway(self) -> int:
        """Tokens saved by what is in use at any time: all uses but the first."""
        tree = self._tree
        again = (tree.leaf_end - tree.leaf_begin).astype(np.int64) - 1
        return int((tree.segment * again)[tree.depth <= self._resident].sum())

    def _row(
        self,
        units: NDArray[np.int32],
        position: NDArray[np.int32],
        half: NDArray[np.bool_] | None,
        threshold: float,
    ) -> UnitRow:
        tree = self._tree
        sizes = (tree.leaf_end[units] - tree.leaf_begin[units]).astype(np.int64)
        first = np.concatenate(([0], np.cumsum(sizes)))
        # `position` is a depth-first place with sorted children, so a unit's leaves lie side by side in it.
        by_position = np.empty(tree.prompts, dtype=np.int32)
        by_position[position[tree.leaf]] = np.arange(tree.prompts, dtype=np.int32)
        place = np.repeat(position[units] - first[:-1], sizes)
        place += np.arange(first[-1])
        leaf = by_position[place].astype(np.int64)
        del place, by_position
        shared, always_resident = self._stems.beside(leaf)
        total = tree.shared_tokens
        alike = np.arange(len(units)) if half is None else half[units].astype(np.int64)
        saved = self._kept_anyway + int(np.maximum(shared - always_resident, 0).sum(dtype=np.int64))
        return UnitRow(leaf, first, alike, shared, always_resident, saved / total if total else 1.0, threshold)


def _running_sum(values: NDArray[np.int32]) -> NDArray[np.int64]:
    """Sum of all before each, and of all: i64 (n + 1,)."""
    sums = np.zeros(len(values) + 1, dtype=np.int64)
    np.cumsum(values, out=sums[1:])
    return sums


def _log_ratio(compute: NDArray[np.float64], memory: NDArray[np.float64]) -> NDArray[np.float64]:
    """Densities on a scale without infinities: prefill-only work is at one end, work without prefill at the other."""
    ratio: NDArray[np.float64] = np.log(np.maximum(compute, _TINY))
    ratio -= np.log(np.maximum(memory, _TINY))
    # Some bits less, and equal ones are found without looking each up (`stable_order`).
    ratio *= _FINE
    np.rint(ratio, out=ratio)
    ratio /= _FINE
    return ratio


def _leaning_chance(density: NDArray[np.float64], half: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Numbers from 0 to 1 by chance, higher ones more often where the density is high within its half: f64 (K,)."""
    chance = np.random.default_rng(_SEED).random(len(density))
    for number, lean in enumerate(_LEANS):
        mine = np.flatnonzero(half == number)
        rank = np.empty(len(mine))
        rank[stable_order(density[mine])] = np.arange(len(mine)) / max(len(mine), 1)
        chance[mine] = lean * rank + (1 - lean) * chance[mine]
    return chance


def _alike(tree: PrefixTree, leaf_density: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Nodes whose leaves' densities lie within a factor of `_ALIKE`. bool (K,); true for leaves."""
    low, high = _leaf_range(tree.parent, tree.leaf, leaf_density)
    alike: NDArray[np.bool_] = (high - low) < np.log(_ALIKE)
    return alike


def _critical_thresholds(tree: PrefixTree, cost: NDArray[np.int32], alike: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Smallest threshold at which Algorithm 2 cuts each node; infinite for leaves and for what is not worth a cut.

    Algorithm 2 cuts a node of c children under t if cost * c <= t, and goes on below with t / c. So node v is cut
    from the root's threshold t on if cost * c * (product of the ancestors' c) <= t there and at all its ancestors.
    cost: i32 (K,), tokens that each piece computes again: the node's depth, less what is in use at any time.
    """
    children = np.bincount(tree.parent[1:], minlength=len(tree)).astype(np.float64)
    return _critical(tree.parent, np.maximum(cost, 0), children, alike)


@compiled(I32_IN, I32_IN, F64_IN)
def _leaf_range(
    parent: NDArray[np.int32], leaves: NDArray[np.int32], density: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    low = np.full(len(parent), np.inf)
    high = np.full(len(parent), -np.inf)
    for leaf in leaves:
        low[leaf] = density[leaf]
        high[leaf] = density[leaf]
    for node in range(len(parent) - 1, 0, -1):
        above = parent[node]
        low[above] = min(low[above], low[node])
        high[above] = max(high[above], high[node])
    return low, high


@compiled(I32_IN, I32_IN, F64_IN, BOOL_IN)
def _critical(
    parent: NDArray[np.int32], cost: NDArray[np.int32], children: NDArray[np.float64], alike: NDArray[np.bool_]
) -> NDArray[np.float64]:
    critical = np.full(len(parent), np.inf)
    factor = np.ones(len(parent))
    if children[0] > 0:
        critical[0] = 0.0
    for node in range(1, len(parent)):
        above = parent[node]
        factor[node] = factor[above] * children[above]
        if children[node] > 0 and not alike[node]:
            critical[node] = max(cost[node] * children[node] * factor[node], critical[above])
    return critical
