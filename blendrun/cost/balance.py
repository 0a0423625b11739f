"""Ratios and bounds of a demand: density by node, and the least time that the whole job can take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blendrun.cost.base import Demand, Machine
from blendrun.tree.base import PrefixTree


@dataclass(frozen=True, slots=True)
class Bound:
    """Seconds of arithmetic and of KV reads in a whole job, every prefix shared as far as the tree allows.

    Reads of weights are not in it: how often they are read depends on the steps (see `step`).
    """

    compute: float
    memory: float

    @property
    def overlapped(self) -> float:
        """T_o = max((1 - s_o) Tcomp, Tmem), in seconds: no order is faster (docs/paper.md#bounds-of-a-run)."""
        return max(self.compute, self.memory)

    @property
    def serial(self) -> float:
        """(1 - s_o) Tcomp + Tmem, in seconds: where compute and memory work take turns.

        docs/paper.md#bounds-of-a-run.
        """
        return self.compute + self.memory


def bound_seconds(demand: Demand, machine: Machine) -> Bound:
    """The job's seconds of compute and of memory at the machine's rates."""
    return Bound(float(demand.flops.sum()) / machine.flops, float(demand.kv_bytes.sum()) / machine.bandwidth)


def density(demand: Demand, tree: PrefixTree, machine: Machine, *, charge_path: bool = False) -> NDArray[np.float64]:
    """rho of each node's sub-tree, f64 (K,): seconds of compute over seconds of memory, each summed first.

    The bottom-up form (docs/paper.md#the-resource-aware-tree): a token shared inside the sub-tree counts once. Infinite
    where nothing is decoded.
    charge_path: also count the path above the node once, as for a sub-tree that is visited alone.
    """
    compute = tree.subtree_sum(demand.flops)
    if charge_path:
        compute = compute + path_sum(tree, demand.flops)
    memory = tree.subtree_sum(demand.kv_bytes) / machine.bandwidth
    ratio: NDArray[np.float64] = np.full(len(tree), np.inf)
    np.divide(compute / machine.flops, memory, out=ratio, where=memory > 0)
    return ratio


def path_sum(tree: PrefixTree, own: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum of `own` over each node's ancestors, itself left out. own, result: f64 (K,)."""
    # In preorder, what stands before a node is its ancestors and the sub-trees that have ended.
    before = np.concatenate(([0.0], np.cumsum(own)[:-1]))
    ended = np.cumsum(np.bincount(tree.end, weights=own, minlength=len(tree) + 1))[:-1]
    return np.maximum(before - ended, 0.0)
