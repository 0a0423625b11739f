"""The Plan: everything that is known of a job before it runs, and the orders it could be fed in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from blendrun.blend.base import Blend, Order, OrderName
from blendrun.blend.blended import KEEP, blend
from blendrun.blend.simple import simple_order
from blendrun.cost.balance import Bound, bound_seconds
from blendrun.cost.base import Demand, Machine
from blendrun.cost.capacity import KvPool, kv_pool
from blendrun.cost.formulas import demand
from blendrun.cost.step import step_budget
from blendrun.lengths.base import Lengths
from blendrun.lengths.estimate import LengthMode, estimate
from blendrun.lengths.evidence import Recalled
from blendrun.lengths.history import History, HistoryUnavailableError
from blendrun.models.card import ModelCard
from blendrun.planner.workload import PlannedModel
from blendrun.tokens.base import Prompts
from blendrun.tree.base import PrefixTree
from blendrun.tree.build import build_tree
from blendrun.tree.compiled import load_kernels, needs_compiling
from blendrun.tree.hits import lru_hits

Phase = Callable[[str, str], None]
SIMPLE_ORDERS = (OrderName.GIVEN, OrderName.SHUFFLED, OrderName.SORTED, OrderName.LOF)


@dataclass(frozen=True, slots=True, eq=False)
class Structure:
    """A workload's shape on no machine in particular: its tree and what is expected of its answers."""

    prompts: Prompts
    tree: PrefixTree
    lengths: Lengths


@dataclass(frozen=True, slots=True)
class Candidate:
    """One order.

    hit_tokens: prompt tokens found in a least-recently-used cache of one replica's KV pool, requests one at a time.
    bound_seconds: the least time for what is left to compute then, perfectly overlapped with the KV reads.
    """

    order: Order
    hit_tokens: int
    bound_seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A workload on a machine.

    machine: all devices. pool: how they divide into replicas.
    demand, bound: of the whole job; the bound on all devices.
    step_budget: tokens a step of one replica, T* (paper.md 1.6), a multiple of 128.
    candidates: the orders compared; chosen: the one to feed.
    """

    structure: Structure
    model: ModelCard
    machine: Machine
    pool: KvPool
    demand: Demand
    bound: Bound
    blend: Blend
    step_budget: int
    candidates: tuple[Candidate, ...]
    chosen: OrderName

    @property
    def order(self) -> Order:
        """The chosen order."""
        return next(candidate.order for candidate in self.candidates if candidate.order.name is self.chosen)

    @property
    def output_tokens(self) -> float:
        """Expected, of all choices."""
        return float((self.structure.lengths.mean * self.structure.prompts.choices).sum())


def make_structure(
    prompts: Prompts, model: PlannedModel, mode: LengthMode, phase: Phase, warn: Callable[[str], None]
) -> Structure:
    """Build the tree and expect lengths. phase: told what begins; warn: told what could not be used."""
    if needs_compiling():
        phase("compile", "the planner's loops, once for this machine")
        load_kernels()
    phase("tree", f"{len(prompts):,} prompts")
    tree = build_tree(prompts)
    lengths = estimate(prompts, tree, mode=mode, history=_history(prompts, model, warn))
    return Structure(prompts, tree, lengths)


def make_plan(
    structure: Structure,
    model: ModelCard,
    machine: Machine,
    *,
    keep: float = KEEP,
    order: OrderName | None = None,
    pool_tokens: int | None = None,
) -> Plan:
    """Cost the tree, blend, and set the simple orders beside the blend.

    keep: share of the prefix sharing that the blend keeps.
    order: the order to feed; None leaves the choice to the plan.
    pool_tokens: of one replica's KV pool, where it is known better than by the memory of the card.
    Raises UsageError where the model does not fit.
    """
    prompts, tree, lengths = structure.prompts, structure.tree, structure.lengths
    pool = kv_pool(model, machine)
    if pool_tokens is not None:
        pool = replace(pool, tokens=pool_tokens)
    costs = demand(tree, prompts, lengths, model, machine)
    blended = blend(tree, prompts, lengths, costs, machine, pool_tokens=pool.tokens, keep=keep)
    bound = bound_seconds(costs, machine)
    orders = (*(simple_order(name, prompts, tree, lengths) for name in SIMPLE_ORDERS), blended.order)
    candidates = tuple(_candidate(made, tree, costs, bound, pool.tokens) for made in orders)
    compute_tokens, kv_bytes = float(costs.compute_tokens.sum()), float(costs.kv_bytes.sum())
    return Plan(
        structure=structure,
        model=model,
        machine=machine,
        pool=pool,
        demand=costs,
        bound=bound,
        blend=blended,
        step_budget=step_budget(compute_tokens, kv_bytes, pool.bytes),
        candidates=candidates,
        chosen=order or OrderName.BLENDED,
    )


def _candidate(order: Order, tree: PrefixTree, costs: Demand, bound: Bound, capacity: int) -> Candidate:
    hits = int(lru_hits(tree, order.prompt, capacity, compute_last=True).sum(dtype=np.int64))
    # What the cache misses is computed at the job's own mean price of a token.
    missed = max(tree.shared_tokens - hits, 0)
    compute = bound.compute * (1 + missed / max(float(costs.compute_tokens.sum()), 1.0))
    return Candidate(order, hits, max(compute, bound.memory))


def _history(prompts: Prompts, model: PlannedModel, warn: Callable[[str], None]) -> Recalled | None:
    if prompts.known.all():
        return None
    try:
        return History.open().recall(model.identity, prompts.cluster)
    except HistoryUnavailableError as error:
        warn(str(error))
        return None
