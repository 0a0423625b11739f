"""The blended order: units by density, read from both ends."""

from __future__ import annotations

from blendrun.blend.base import Blend, Order
from blendrun.blend.leaves import Leaves
from blendrun.blend.scan import dual_scan, feed_tail_longest_first
from blendrun.blend.scan_row import ScanRow
from blendrun.blend.split import Splitter
from blendrun.cost.balance import bound_seconds
from blendrun.cost.base import Demand, Machine
from blendrun.lengths.base import Lengths
from blendrun.names import OrderName
from blendrun.tokens.base import Prompts
from blendrun.tree.base import PrefixTree

KEEP = 0.99


class Blender:
    """One job, with what all blends of it start from.

    pool_tokens: KV tokens that requests may hold together (paper's M).
    """

    def __init__(
        self,
        tree: PrefixTree,
        prompts: Prompts,
        lengths: Lengths,
        demand: Demand,
        machine: Machine,
        *,
        pool_tokens: float,
    ) -> None:
        self._tree, self._pool, self._bound = tree, pool_tokens, bound_seconds(demand, machine)
        self._leaves = Leaves.of(tree, prompts, lengths, demand, machine)
        compute, memory = demand.flops / machine.flops, demand.kv_bytes / machine.bandwidth
        self._splitter = Splitter(tree, compute, memory, self._leaves.running(tree, pool_tokens))

    def blend(self, *, keep: float = KEEP, scattered: bool = False) -> Blend:
        """Mix the compute-heavy and the memory-heavy end of the job, keeping `keep` of its prefix sharing.

        keep: 0 to 1; what neighbours on one side must still share, with what is in use at any time, of what an infinite
            prefix cache saves.
        scattered: see `Splitter.arrange`.
        """
        units = self._splitter.arrange(keep=keep, scattered=scattered)
        row = ScanRow.of(units, self._leaves.footprint(units))
        scan = feed_tail_longest_first(dual_scan(row, self._pool), row, self._pool)
        row_prompt = self._tree.prompt[units.leaf]
        compute, memory = self._bound.compute, self._bound.memory
        return Blend(
            row=row,
            row_prompt=row_prompt,
            order=Order(OrderName.BLENDED, row_prompt[scan.place], scan.side),
            left_share=scan.left_share,
            density=compute / memory if memory > 0 else float("inf"),
            kept_sharing=units.kept,
            units=units.units,
            kv_peak=scan.kv_peak,
        )
