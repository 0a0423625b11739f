"""The blended order: units by density, read from both ends."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from blendrun.blend.base import Blend, Order
from blendrun.blend.scan import dual_scan, feed_tail_longest_first
from blendrun.blend.scan_row import Footprint, ScanRow
from blendrun.blend.split import UnitRow, arrange_units
from blendrun.cost.balance import bound_seconds, path_sum
from blendrun.cost.base import Demand, Machine
from blendrun.lengths.base import Lengths
from blendrun.names import OrderName
from blendrun.tokens.base import Prompts
from blendrun.tree.base import PrefixTree

KEEP = 0.99


def blend(
    tree: PrefixTree,
    prompts: Prompts,
    lengths: Lengths,
    demand: Demand,
    machine: Machine,
    *,
    pool_tokens: float,
    keep: float = KEEP,
    scattered: bool = False,
) -> Blend:
    """Mix the compute-heavy and the memory-heavy end of the job, keeping `keep` of its prefix sharing.

    pool_tokens: KV tokens that requests may hold together (paper's M).
    keep: 0 to 1; what neighbours on one side must still share, with what is in use at any time, of what an infinite
        prefix cache saves.
    scattered: see `arrange_units`.
    """
    units = arrange_units(
        tree,
        demand.flops / machine.flops,
        demand.kv_bytes / machine.bandwidth,
        _running(tree, prompts, lengths, pool_tokens),
        keep=keep,
        scattered=scattered,
    )
    row = ScanRow.of(units, _held(tree, units, prompts, lengths, demand, machine))
    scan = feed_tail_longest_first(dual_scan(row, pool_tokens), row, pool_tokens)
    bound = bound_seconds(demand, machine)
    return Blend(
        row=row,
        row_prompt=tree.prompt[units.leaf],
        order=Order(OrderName.BLENDED, tree.prompt[units.leaf[scan.place]], scan.side),
        left_share=scan.left_share,
        density=bound.compute / bound.memory if bound.memory > 0 else float("inf"),
        kept_sharing=units.kept,
        units=units.units,
        kv_peak=scan.kv_peak,
    )


def _running(tree: PrefixTree, prompts: Prompts, lengths: Lengths, pool_tokens: float) -> NDArray[np.float64]:
    """Requests below each node that run at once in the mean: f64 (K,). The job's decode steps follow from a full pool.

    Little's law: steps of all requests below a node over steps of the job, if they are spread over it.
    """
    steps = np.maximum(lengths.mean, 1.0)
    held = float(((prompts.prompt_tokens + prompts.choices * steps / 2) * steps).sum())
    own = np.bincount(tree.leaf, weights=steps[tree.prompt], minlength=len(tree)).astype(np.float64)
    return tree.subtree_sum(own) / max(held / pool_tokens, 1.0)


def _held(
    tree: PrefixTree, row: UnitRow, prompts: Prompts, lengths: Lengths, demand: Demand, machine: Machine
) -> Footprint:
    node = tree.leaf[row.leaf]
    prompt = tree.prompt[row.leaf]
    tokens = prompts.prompt_tokens[prompt].astype(np.float64)
    choices = prompts.choices[prompt].astype(np.float64)
    mean, square = lengths.mean[prompt], lengths.square[prompt]
    # A leaf's own demand covers its own segment; the inner segments belong to whoever comes first, and the row says
    # who that is: they are charged by the share of the path above that is not the left neighbour's.
    above = tree.start[node].astype(np.float64)
    fresh = np.maximum(tokens - np.maximum(row.shared, row.always_resident) - tree.segment[node], 0.0)
    part = np.divide(fresh, above, out=np.zeros_like(above), where=above > 0)
    inner = path_sum(tree, demand.flops)[node] * part
    memory, reads = demand.kv_bytes[node], choices * (tokens * mean + square / 2)
    if demand.shares_reads:
        memory = memory + path_sum(tree, demand.kv_bytes)[node] * part
        # In any unit: only proportions of reads to tokens held count.
        reads = memory
    return Footprint(
        prompt=tokens,
        rows=choices,
        steps=np.maximum(mean, 1.0),
        reads=reads,
        reach=lengths.reach[prompt],
        compute=(demand.flops[node] + inner) / machine.flops,
        memory=memory / machine.bandwidth,
    )
