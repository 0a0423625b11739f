"""What each request costs and asks of the pool, in the tree's order: once for all rows that a job is put into."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blendrun.blend.scan_row import Footprint
from blendrun.blend.split import UnitRow
from blendrun.cost.balance import path_sum
from blendrun.cost.base import Demand, Machine
from blendrun.lengths.base import Lengths
from blendrun.tokens.base import Prompts
from blendrun.tree.base import PrefixTree

# So many leaves at a time: their numbers fit a core's cache.
_TAKEN = 1024
# Columns of what the tokens above cost; none of them is where there are none.
_ABOVE = 7, 9


@dataclass(frozen=True, slots=True, eq=False)
class Leaves:
    """One row of numbers for each leaf, so that another order of them goes to memory once for each leaf.

    table: f64 (M, 9) or, where decode kernels share prefixes, (M, 10): prompt tokens above its own segment and in all;
        choices; decode steps of each, at least 1; KV tokens read; tokens that an answer may well have; in seconds its
        own compute and that of a token above, in the mean; and memory likewise, which has none above where each request
        reads its own prefix.
    """

    table: NDArray[np.float64]

    @classmethod
    def of(cls, tree: PrefixTree, prompts: Prompts, lengths: Lengths, demand: Demand, machine: Machine) -> Leaves:
        columns = [demand.flops / machine.flops, path_sum(tree, demand.flops) / machine.flops]
        columns += [demand.kv_bytes / machine.bandwidth]
        if demand.shares_reads:
            columns += [path_sum(tree, demand.kv_bytes) / machine.bandwidth]
        reach = lengths.reach
        table = np.empty((tree.prompts, 6 + len(columns)))
        for begin in range(0, tree.prompts, _TAKEN):
            block = slice(begin, begin + _TAKEN)
            node, prompt = tree.leaf[block], tree.prompt[block]
            above, tokens = tree.start[node].astype(np.float64), prompts.prompt_tokens[prompt].astype(np.float64)
            rows, mean, square = prompts.choices[prompt], lengths.mean[prompt], lengths.square[prompt]
            reads = rows * (tokens * mean + square / 2)
            own = (above, tokens, rows, np.maximum(mean, 1.0), reads, reach[prompt])
            table[block, :6] = np.stack(own, axis=1)
            table[block, 6:] = np.stack([each[node] for each in columns], axis=1)
            for column in _ABOVE[: len(columns) // 2]:
                # Of a token, rather their mean.
                np.divide(table[block, column], above, out=table[block, column], where=above > 0)
        return cls(table)

    def running(self, tree: PrefixTree, pool_tokens: float) -> NDArray[np.float64]:
        """Requests below each node that run at once in the mean: f64 (K,). The job's decode steps follow from a full
        pool.

        Little's law: steps of all requests below a node over steps of the job, if they are spread over it.
        """
        _, tokens, rows, steps = self.table.T[:4]
        held = float(((tokens + rows * steps / 2) * steps).sum())
        own = np.bincount(tree.leaf, weights=steps, minlength=len(tree)).astype(np.float64)
        return tree.subtree_sum(own) / max(held / pool_tokens, 1.0)

    def footprint(self, row: UnitRow) -> Footprint:
        """What each leaf of a row asks for.

        A leaf's own demand covers its own segment; the inner segments belong to whoever comes first, and the row says
        who that is: they are charged by the share of the path above that is not the left neighbour's.
        """
        columns = np.empty((self.table.shape[1], len(row.leaf)))
        for begin in range(0, len(row.leaf), _TAKEN):
            taken = slice(begin, begin + _TAKEN)
            columns[:, taken] = self.table.take(row.leaf[taken], axis=0).T
        above, tokens, rows, steps, reads, reach, compute, compute_above, memory = columns[:9]
        fresh = np.maximum(above - np.maximum(row.shared, row.always_resident), 0.0)
        compute += compute_above * fresh
        if len(columns) > 9:
            memory += columns[9] * fresh
            # In any unit: only proportions of reads to tokens held count.
            reads = memory
        return Footprint(tokens, rows, steps, reads, reach, compute, memory)
