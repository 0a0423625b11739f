"""The Plan: everything that is known of a job before it runs, and the orders it could be fed in."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from blendrun.blend.base import Blend, Order
from blendrun.blend.blended import KEEP, Blender
from blendrun.blend.orders import simple_order
from blendrun.blend.partition import Partition, partition
from blendrun.cost.balance import Bound, bound_seconds
from blendrun.cost.base import Demand, Machine
from blendrun.cost.capacity import NO_LIMITS, EngineLimits, KvPool, kv_pool
from blendrun.cost.formulas import demand
from blendrun.cost.reserve import engine_chunk
from blendrun.cost.step import step_budget
from blendrun.database import learns
from blendrun.events import Event, Listener, Note, PhaseStarted, Progress, ignore
from blendrun.lengths.base import Lengths
from blendrun.lengths.estimate import estimate
from blendrun.lengths.evidence import Recalled
from blendrun.lengths.history import History, HistoryUnavailableError
from blendrun.models.card import ModelCard
from blendrun.names import LengthMode, OrderName, Overlap
from blendrun.planner.rows import graphs_for
from blendrun.planner.workload import PlannedModel
from blendrun.simulate.draw import draw_outputs
from blendrun.simulate.portfolio import Portfolio, simulate_portfolio
from blendrun.simulate.side_by_side import PartPortfolio, side_by_side
from blendrun.tokens.base import Prompts
from blendrun.tree.ahead import finish_loading
from blendrun.tree.base import PrefixTree
from blendrun.tree.build import build_tree
from blendrun.tree.interpreted import interprets
from blendrun.tree.restrict import restrict


@dataclass(frozen=True, slots=True, eq=False)
class Structure:
    """A workload's shape on no machine in particular: its tree and what is expected of its answers."""

    prompts: Prompts
    tree: PrefixTree
    lengths: Lengths

    def take(self, numbers: NDArray[np.int64]) -> Structure:
        """Some of the prompts as a workload of their own. numbers: i64 (n,), ascending."""
        return Structure(self.prompts.take(numbers), restrict(self.tree, numbers), self.lengths.take(numbers))


@dataclass(frozen=True, slots=True, eq=False)
class Costed:
    """A workload on a machine.

    machine: all devices. pool: how they divide into replicas. limits: what each engine was told.
    demand, bound: of the whole job; the bound on all devices.
    blend, scattered: the job blended, by density and by chance within its two halves (`blend.split`).
    step_budget: tokens a step of one replica, T* (docs/paper.md#the-step-budget), a multiple of 128.
    graph_rows: that decode graphs are to be captured for, which the pool has made room for; None on a CPU.
    keep: share of the prefix sharing that the blends keep.
    """

    structure: Structure
    model: ModelCard
    machine: Machine
    pool: KvPool
    demand: Demand
    bound: Bound
    blend: Blend
    scattered: Blend
    step_budget: int
    limits: EngineLimits = NO_LIMITS
    graph_rows: int | None = None
    keep: float = KEEP

    @property
    def chunk(self) -> int:
        """Prefill tokens of an engine's step that is no mixed one."""
        return self.limits.chunk or engine_chunk(self.machine.card)

    def with_pool(self, tokens: int) -> Costed:
        """The same where an engine's pool turned out to hold so many tokens; blends stay as they are."""
        limits = replace(self.limits, pool_tokens=tokens)
        return replace(self, limits=limits, pool=replace(self.pool, tokens=tokens))

    @property
    def output_tokens(self) -> float:
        """Expected, of all choices."""
        return float((self.structure.lengths.mean * self.structure.prompts.choices).sum())

    def order(self, name: OrderName) -> Order:
        """One of the orders, as a list."""
        if name is OrderName.BLENDED:
            return self.blend.order
        return simple_order(name, self.structure.prompts, self.structure.tree, self.structure.lengths)


@dataclass(frozen=True, slots=True)
class Choice:
    """What the plan may choose from: orders, overlap modes, and the price of an hour of one device (None: unknown).

    beside: of the orders and modes, those that are simulated for comparison and never chosen.
    """

    orders: tuple[OrderName, ...] = tuple(OrderName)
    overlaps: tuple[Overlap, ...] = (Overlap.EXCLUSIVE, Overlap.MIXED)
    gpu_hour: float | None = None
    beside: frozenset[OrderName | Overlap] = frozenset()


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What one of several replicas does. numbers: i64, ascending, its prompts in the whole; its plan counts from 0."""

    numbers: NDArray[np.int64]
    plan: Plan


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A workload on a machine with its orders simulated.

    partition, parts: how it divides among replicas, and what each of them does; none for one. Parts may be fewer than
    replicas, where requests are.
    """

    costed: Costed
    portfolio: Portfolio
    partition: Partition | None = None
    parts: tuple[Part, ...] = ()

    @property
    def order(self) -> Order:
        """The chosen order, as a list."""
        fed = self.portfolio.chosen.fed
        return fed.order if isinstance(fed, Blend) else fed

    @property
    def blend(self) -> Blend:
        """The faster one of the blends; the one by density where none was simulated."""
        found = [(each.seconds, each.fed) for each in self.portfolio.candidates if isinstance(each.fed, Blend)]
        return min(found, key=lambda each: each[0])[1] if found else self.costed.blend


def make_structure(prompts: Prompts, model: PlannedModel, mode: LengthMode, listener: Listener = ignore) -> Structure:
    """Build the tree and expect lengths. listener: told what begins, and what could not be used."""
    if not interprets():
        told = PhaseStarted("compile", "the planner's loops, once for this machine: usually 10 to 40 s")
        finish_loading(lambda: listener(told))
    listener(PhaseStarted("tree", f"{len(prompts):,} prompts"))
    tree = build_tree(prompts)
    lengths = estimate(prompts, tree, mode=mode, history=recall(prompts, model.identity, listener))
    return Structure(prompts, tree, lengths)


def cost_structure(
    structure: Structure,
    model: ModelCard,
    machine: Machine,
    *,
    keep: float = KEEP,
    limits: EngineLimits = NO_LIMITS,
) -> Costed:
    """Cost the tree and blend it.

    keep: share of the prefix sharing that the blend keeps.
    limits: of one replica's engine, where more is known than the memory of the card.
    Raises UsageError where the model does not fit.
    """
    prompts, tree, lengths = structure.prompts, structure.tree, structure.lengths
    graphs = graphs_for(structure.prompts, tree, lengths, kv_pool(model, machine, limits), machine.card, limits)
    pool = kv_pool(model, machine, replace(limits, graph_rows=graphs))
    costs = demand(tree, prompts, lengths, model, machine, shared_reads=limits.shared_reads)
    blender = Blender(tree, prompts, lengths, costs, machine, pool_tokens=pool.tokens)
    compute_tokens, kv_bytes = float(costs.compute_tokens.sum()), float(costs.kv_bytes.sum())
    return Costed(
        structure=structure,
        model=model,
        machine=machine,
        pool=pool,
        demand=costs,
        bound=bound_seconds(costs, machine),
        blend=blender.blend(keep=keep),
        scattered=blender.blend(keep=keep, scattered=True),
        step_budget=step_budget(compute_tokens, kv_bytes, pool.bytes),
        limits=limits,
        graph_rows=graphs,
        keep=keep,
    )


def make_plan(costed: Costed, choice: Choice, listener: Listener = ignore) -> Plan:
    """Simulate the orders and choose; for several replicas, on a part of the job each. listener: told how far it is.

    Raises UsageError for a request that does not fit the pool.
    """
    replicas = costed.pool.replicas
    if replicas == 1:
        return Plan(costed, _portfolio(costed, choice, draw_outputs(costed.structure.lengths), listener))
    return make_parts(costed, choice, partition(costed.structure.tree, costed.demand, replicas), listener)


def make_parts(costed: Costed, choice: Choice, cut: Partition, listener: Listener = ignore) -> Plan:
    """Simulate each part of a job on one replica and choose what is best for all. Raises as `make_plan` does."""
    structure, one = costed.structure, costed.machine.some(costed.pool.gpus)
    # Drawn once: an answer is as long on two devices as on one.
    outputs = draw_outputs(structure.lengths)
    parts: list[Part] = []
    numbers = [found for found in map(cut.prompts, range(len(cut))) if len(found)] or [cut.prompts(0)]
    for done, mine in enumerate(numbers):
        alone = cost_structure(structure.take(mine), costed.model, one, keep=costed.keep, limits=costed.limits)
        portfolio = _portfolio(alone, choice, outputs[mine], _of_parts(listener, done, len(numbers)))
        parts.append(Part(mine, Plan(alone, portfolio)))
    found = [PartPortfolio(part.numbers, part.plan.portfolio) for part in parts]
    return Plan(costed, side_by_side(found, costed.bound), cut, tuple(parts))


def _of_parts(listener: Listener, before: int, parts: int) -> Listener:
    """Hears of the simulations of one part, and tells how far all of them are. before: parts that are done."""

    def hear(event: Event) -> None:
        if isinstance(event, Progress):
            event = replace(event, done=before * event.total + event.done, total=parts * event.total)
        listener(event)

    return hear


def _portfolio(costed: Costed, choice: Choice, outputs: NDArray[np.int64], listener: Listener) -> Portfolio:
    structure = costed.structure
    simple = [costed.order(name) for name in choice.orders if name is not OrderName.BLENDED]
    return simulate_portfolio(
        structure.tree,
        structure.prompts,
        structure.lengths,
        simple,
        [costed.blend, costed.scattered] if OrderName.BLENDED in choice.orders else [],
        costed.model,
        costed.machine,
        pool=costed.pool,
        demand=costed.demand,
        overlaps=choice.overlaps,
        beside=choice.beside,
        chunk=costed.chunk,
        max_running=costed.limits.max_running,
        shared_reads=costed.limits.shared_reads,
        outputs=outputs,
        gpu_hour=choice.gpu_hour,
        listener=listener,
    )


def recall(prompts: Prompts, identity: str, listener: Listener) -> Recalled | None:
    """What earlier runs of a model saw of these kinds of request; None where that is nothing or cannot be read.

    identity: of the weights (`ResolvedModel.identity`).
    """
    if prompts.known.all() or not learns():
        return None
    try:
        return History.open().recall(identity, prompts.cluster)
    except HistoryUnavailableError as error:
        listener(Note(str(error), warning=True))
        return None
