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

import numpy as np
from numpy.typing import NDArray

from blendrun.cost.balance import path_sum
from blendrun.tree.base import PrefixTree
from blendrun.tree.compiled import BOOL_IN, F64_IN, I32_IN, I64_IN, compiled
from blendrun.tree.shared import SharedPrefix

# A sub-tree whose leaves' densities differ by less than this factor is not cut: nothing would be sorted by it.
_ALIKE = 1.25
# So many requests of a node running in the mean, and the chance that none does is below 2 % (Poisson).
_EVER_USED = 4.0
_TINY = 1e-30
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


def arrange_units(
    tree: PrefixTree,
    compute: NDArray[np.float64],
    memory: NDArray[np.float64],
    running: NDArray[np.float64],
    *,
    keep: float = 0.99,
    scattered: bool = False,
) -> UnitRow:
    """Cut the tree as finely as `keep` of its sharing allows, and sort the pieces by density, the highest first.

    compute, memory: f64 (K,), each node's own seconds at the machine's rates.
    running: f64 (K,), requests below each node that run at once in the mean, if spread over the whole job.
    keep: share of the tree's shared tokens that the row must still share, 0 to 1.
    scattered: sort the pieces only into those denser than the job and the rest, and by chance within both. Then both
        ends are nearly alike from the first step to the last, and requests of many lengths stand together, which fill a
        pool more evenly than requests of one length do: those grow and end together. Chance leans towards density: long
        answers come early more often than late, as behind one that begins late nothing fills the machine.
    """
    return _Splitter(tree, compute, memory, running, scattered).finest(keep)


class _Splitter:
    """One tree, its costs, and the thresholds at which its nodes are cut."""

    def __init__(
        self,
        tree: PrefixTree,
        compute: NDArray[np.float64],
        memory: NDArray[np.float64],
        running: NDArray[np.float64],
        scattered: bool,
    ) -> None:
        self.tree = tree
        self.prefix = SharedPrefix(tree)
        # In use at any time: a part of the tree that has the root and, with any node, the path to it.
        always_resident = running >= _EVER_USED
        segment = (tree.segment * always_resident).astype(np.float64)
        self.always_resident = np.rint(path_sum(tree, segment) + segment).astype(np.int64)
        total_compute, total_memory = tree.subtree_sum(compute), tree.subtree_sum(memory)
        # A unit visited alone computes the path above it too.
        alone = total_compute + path_sum(tree, np.where(always_resident, 0.0, compute))
        self.unit_density = _log_ratio(alone, total_memory)
        # What units stand by, and siblings in a unit: their density, or chance (units within the halves of the job).
        self.rank, beside = self.unit_density, _log_ratio(total_compute, total_memory)
        self.half: NDArray[np.int64] | None = None
        if scattered:
            self.half = (self.unit_density < beside[0]).astype(np.int64)
            beside = _leaning_chance(self.unit_density, self.half)
            self.rank = beside - self.half
        self.position = _sorted_positions(tree, beside)
        alike = _alike(tree, _log_ratio(compute, memory))
        self.critical = _critical_thresholds(tree, tree.depth - self.always_resident, alike)

    def finest(self, keep: float) -> UnitRow:
        """Binary search over the thresholds at which something changes."""
        candidates = np.unique(self.critical[np.isfinite(self.critical)])
        wanted = keep * self.tree.shared_tokens
        # Below the first candidate only the root is cut, which costs nothing.
        low, high, found = 0, len(candidates), 0
        while low < high:
            middle = (low + high) // 2
            if self._kept_tokens(self._units(candidates[middle])) >= wanted:
                found, low = middle, middle + 1
            else:
                high = middle
        threshold = float(candidates[found]) if len(candidates) else 0.0
        return self._row(self._units(threshold), threshold)

    def _units(self, threshold: float) -> NDArray[np.int64]:
        """Nodes of the units, in the order of the row."""
        cut = self.critical <= threshold
        # The root's parent is -1: its own row is dropped, as it is cut wherever it has children.
        units = np.flatnonzero(cut[self.tree.parent[1:]] & ~cut[1:]) + 1
        if not len(units):
            units = np.zeros(1, dtype=np.int64)
        return units[np.argsort(-self.rank[units], kind="stable")]

    def _kept_tokens(self, units: NDArray[np.int64]) -> int:
        """Shared tokens that are in use at any time, or shared inside a unit, or by the heads of neighbours."""
        tree = self.tree
        beyond = np.where(tree.depth > self.always_resident, tree.segment, 0)
        depths = np.concatenate(([0], np.cumsum((tree.depth - self.always_resident)[tree.leaf], dtype=np.int64)))
        segments = np.concatenate(([0], np.cumsum(beyond, dtype=np.int64)))
        above = np.maximum(tree.start[units] - self.always_resident[units], 0)
        whole = depths[tree.leaf_end[units]] - depths[tree.leaf_begin[units]]
        distinct = segments[tree.end[units]] - segments[units] + above
        heads = tree.leaf_begin[units].astype(np.int64)
        between = np.maximum(self.prefix(heads[:-1], heads[1:]) - self.always_resident[tree.leaf[heads[1:]]], 0)
        return self._ever_kept() + int((whole - distinct).sum() + between.sum(dtype=np.int64))

    def _ever_kept(self) -> int:
        """Tokens saved by what is in use at any time: all uses but the first."""
        tree = self.tree
        again = (tree.leaf_end - tree.leaf_begin).astype(np.int64) - 1
        return int((tree.segment * again)[tree.depth <= self.always_resident].sum())

    def _row(self, units: NDArray[np.int64], threshold: float) -> UnitRow:
        tree = self.tree
        sizes = (tree.leaf_end[units] - tree.leaf_begin[units]).astype(np.int64)
        first = np.concatenate(([0], np.cumsum(sizes)))
        # `position` is a depth-first place with sorted children, so a unit's leaves lie side by side in it.
        by_position = np.empty(tree.prompts, dtype=np.int64)
        by_position[self.position[tree.leaf]] = np.arange(tree.prompts)
        within = np.arange(first[-1]) - np.repeat(first[:-1], sizes)
        leaf = by_position[np.repeat(self.position[units], sizes) + within]
        shared = np.concatenate(([0], self.prefix(leaf[:-1], leaf[1:]))).astype(np.int32)
        always_resident = self.always_resident[tree.leaf[leaf]].astype(np.int32)
        total = tree.shared_tokens
        alike = np.arange(len(units)) if self.half is None else self.half[units]
        saved = self._ever_kept() + int(np.maximum(shared - always_resident, 0).sum(dtype=np.int64))
        return UnitRow(leaf, first, alike, shared, always_resident, saved / total if total else 1.0, threshold)


def _log_ratio(compute: NDArray[np.float64], memory: NDArray[np.float64]) -> NDArray[np.float64]:
    """Densities on a scale without infinities: prefill-only work is at one end, work without prefill at the other."""
    ratio: NDArray[np.float64] = np.log(np.maximum(compute, _TINY)) - np.log(np.maximum(memory, _TINY))
    return ratio


def _leaning_chance(density: NDArray[np.float64], half: NDArray[np.int64]) -> NDArray[np.float64]:
    """Numbers from 0 to 1 by chance, higher ones more often where the density is high within its half: f64 (K,)."""
    chance = np.random.default_rng(_SEED).random(len(density))
    for number, lean in enumerate(_LEANS):
        mine = np.flatnonzero(half == number)
        rank = np.empty(len(mine))
        rank[np.argsort(density[mine], kind="stable")] = np.arange(len(mine)) / max(len(mine), 1)
        chance[mine] = lean * rank + (1 - lean) * chance[mine]
    return chance


def _sorted_positions(tree: PrefixTree, density: NDArray[np.float64]) -> NDArray[np.int64]:
    """First leaf place of each node when the children of every node stand by density, highest first (Algorithm 1).

    Ties keep the tree's order. i64 (K,).
    """
    order = np.lexsort((-density[1:], tree.parent[1:])) + 1
    sizes = (tree.leaf_end - tree.leaf_begin)[order].astype(np.int64)
    before = np.concatenate(([0], np.cumsum(sizes)[:-1])) if len(sizes) else np.zeros(0, dtype=np.int64)
    parents = tree.parent[order]
    heads = np.concatenate(([True], parents[1:] != parents[:-1])) if len(parents) else np.zeros(0, dtype=bool)
    group = np.cumsum(heads) - 1
    offset = np.zeros(len(tree), dtype=np.int64)
    offset[order] = before - before[heads][group]
    return _descend_places(tree.parent, offset)


def _alike(tree: PrefixTree, leaf_density: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Nodes whose leaves' densities lie within a factor of `_ALIKE`. bool (K,); true for leaves."""
    low, high = _leaf_range(tree.parent, tree.leaf, leaf_density)
    alike: NDArray[np.bool_] = (high - low) < np.log(_ALIKE)
    return alike


def _critical_thresholds(tree: PrefixTree, cost: NDArray[np.int64], alike: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Smallest threshold at which Algorithm 2 cuts each node; infinite for leaves and for what is not worth a cut.

    Algorithm 2 cuts a node of c children under t if cost * c <= t, and goes on below with t / c. So node v is cut
    from the root's threshold t on if cost * c * (product of the ancestors' c) <= t there and at all its ancestors.
    cost: i64 (K,), tokens that each piece computes again: the node's depth, less what is in use at any time.
    """
    children = np.bincount(tree.parent[1:], minlength=len(tree)).astype(np.float64)
    return _critical(tree.parent, np.maximum(cost, 0), children, alike)


@compiled(I32_IN, I64_IN)
def _descend_places(parent: NDArray[np.int32], offset: NDArray[np.int64]) -> NDArray[np.int64]:
    place = offset.copy()
    for node in range(1, len(offset)):
        place[node] += place[parent[node]]
    return place


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


@compiled(I32_IN, I64_IN, F64_IN, BOOL_IN)
def _critical(
    parent: NDArray[np.int32], cost: NDArray[np.int64], children: NDArray[np.float64], alike: NDArray[np.bool_]
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
