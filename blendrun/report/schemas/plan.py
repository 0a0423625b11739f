"""`blendrun plan --json`: a versioned schema (docs/schemas/plan.json), made of these classes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import msgspec
import numpy as np

from blendrun.blend.budget import AdaptiveBudget, Budget, ConstantBudget, CrossoverBudget, TurnsBudget
from blendrun.cost.base import Figure
from blendrun.lengths.estimate import length_report
from blendrun.planner.plan import Costed, Plan
from blendrun.planner.workload import Described
from blendrun.report.schemas.icicle import IcicleNode, icicle
from blendrun.report.schemas.series import Series, planned_series
from blendrun.report.schemas.what_if import WhatIfRow
from blendrun.simulate.portfolio import Candidate
from blendrun.simulate.steptime import CONSTANTS, times_rest_on
from blendrun.tree.heavy import heaviest_prefixes
from blendrun.version import __version__

SCHEMA_VERSION = 1
# Edges of the density histogram: powers of two around 1, where compute and memory weigh the same.
_EDGES = tuple(2.0**power for power in range(-6, 9))
_PREFIXES = 20


@dataclass(frozen=True, slots=True)
class Hardware:
    """The machine. pool_tokens: KV cache of one replica. rates: whether the rates are measured, from a datasheet or a
    prior; the weaker of the two rates decides. shared_reads: least tokens of a prefix that a decode step reads once for
    all rows; null where each row reads it."""

    name: str
    gpus: int
    replicas: int
    gpus_per_replica: int
    pool_tokens: int
    flops: float
    bandwidth: float
    rates: str
    shared_reads: int | None


@dataclass(frozen=True, slots=True)
class OrderRow:
    """One order on one overlap mode, with the best step budget of those tried. Simulated: a model's numbers.

    hit_tokens: prompt tokens found in the prefix cache. predicted_seconds: makespan. bound_seconds: the least time for
    the work that this order does. step_budget: tokens a step, null where each step sets its own. policy: "constant",
    "adaptive", "turns, N %" (prefill begins when N % of the rows are left) or "crossover" (a step mixes where that
    is sooner). cost: null without a price.
    """

    name: str
    overlap: str
    hit_tokens: int
    predicted_seconds: float
    bound_seconds: float
    tokens_per_second: float
    step_budget: int | None
    policy: str
    cost: float | None
    chosen: bool


@dataclass(frozen=True, slots=True)
class MachineRow:
    """One answer to "which card, how many": the chosen order there. Null figures where the model does not fit: why."""

    hardware: str
    gpus: int
    replicas: int | None
    order: str | None
    overlap: str | None
    predicted_seconds: float | None
    bound_seconds: float | None
    times: str | None
    cost: float | None
    why_not: str | None


@dataclass(frozen=True, slots=True)
class PartitionFacts:
    """The job in parts, one a replica. kept_sharing: tokens that a cache for each part saves over what one for all
    would. compute_off, memory_off: how far the part furthest from an equal share is from it (0.02: 2 %). seconds: of
    each part, predicted."""

    kept_sharing: float
    compute_off: float
    memory_off: float
    seconds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Prefix:
    """A shared prefix. depth: tokens to its end. saved_tokens: what sharing its own segment saves. density: of the
    requests below it, null where they decode nothing. level: how many listed prefixes stand above it."""

    level: int
    depth: int
    segment_tokens: int
    requests: int
    saved_tokens: int
    density: float | None
    example: str


@dataclass(frozen=True, slots=True)
class Histogram:
    """Requests by density (compute over memory seconds, each alone with its own prompt segment). requests[i] have
    edges[i - 1] <= density < edges[i]; the last is all above, requests that decode nothing among them."""

    edges: tuple[float, ...]
    requests: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class BlendFacts:
    """kept_sharing: share of the infinite cache's savings that neighbours keep. units: pieces moved as a whole.
    kv_peak_tokens: most KV tokens held at once in expected time. left_share: mean share of the pool of the
    compute-heavy side."""

    kept_sharing: float
    units: int
    kv_peak_tokens: float
    left_share: float


@dataclass(frozen=True, slots=True)
class LearnedFacts:
    """Runs on this machine that the times rest on. date: of the last one. error: mean relative error of its steps, once
    they were learned from. sentence: for people."""

    runs: int
    date: str
    error: float
    sentence: str


@dataclass(frozen=True, slots=True)
class Constant:
    """One of the constants of a step's time (`blendrun.simulate.base.StepTime`). origin: "learned", "measured", "model"
    or "prior"; those that runs could not tell apart keep what they were before, and go with the others."""

    seconds: float
    origin: str


@dataclass(frozen=True, slots=True)
class PlanReport:
    """What `blendrun plan --json` prints. Tokens and seconds throughout.

    shared_tokens: what an infinite prefix cache saves. output_tokens: expected. density: compute over memory seconds of
    the whole job, null where nothing is decoded. step_budget: T*. bound_seconds, serial_seconds: with perfect overlap
    and with none, every shared token computed once. practical_seconds: the least of any order on the modes tried,
    longest answer, pool and reads of the weights counted (docs/paper.md#the-practical-bound); 0 where it was not kept.
    why: of the choice. plain_seconds: the given order on SGLang as it
    comes. times: what the predicted seconds rest on: "learned" (earlier runs, on this very machine and model: `learned`
    says which), "measured" (calibrate, as well), "model" (published rates), or "prior". constants: of a step's time, by
    name. machines: every machine asked for, the first of which the rest of the plan is for.
    icicle: the prefix tree, for pictures. timeline: of the chosen order, simulated. partition: null for one replica.
    what_ifs: what was asked for of what blendrun does not turn on.
    """

    schema_version: int
    blendrun: str
    model: str
    kind: str
    hardware: Hardware
    lines: int
    refused: int
    left_out: int
    requests: int
    prompt_tokens: int
    shared_tokens: int
    output_tokens: float
    lengths: dict[str, int]
    density: float | None
    step_budget: int
    bound_seconds: float
    serial_seconds: float
    blend: BlendFacts
    histogram: Histogram
    prefixes: tuple[Prefix, ...]
    orders: tuple[OrderRow, ...]
    why: str
    plain_seconds: float
    times: str
    machines: tuple[MachineRow, ...]
    warnings: tuple[str, ...]
    icicle: tuple[IcicleNode, ...] = ()
    timeline: Series | None = None
    partition: PartitionFacts | None = None
    learned: LearnedFacts | None = None
    constants: dict[str, Constant] = field(default_factory=dict)
    what_ifs: tuple[WhatIfRow, ...] = ()
    practical_seconds: float = 0.0


def plan_report(
    plan: Plan,
    workload: Described,
    machines: tuple[MachineRow, ...] = (),
    what_ifs: tuple[WhatIfRow, ...] = (),
) -> PlanReport:
    """Everything the plan says, as one value. machines: where other machines were asked for too."""
    costed = plan.costed
    tree = costed.structure.tree
    return PlanReport(
        schema_version=SCHEMA_VERSION,
        blendrun=__version__,
        model=workload.model_name,
        kind=workload.kind,
        hardware=_hardware(costed),
        lines=workload.lines,
        refused=workload.refused,
        left_out=workload.left_out,
        requests=tree.prompts,
        prompt_tokens=tree.prompt_tokens,
        shared_tokens=tree.shared_tokens,
        output_tokens=round(costed.output_tokens, 1),
        lengths=length_report(costed.structure.lengths),
        density=_finite(plan.blend.density),
        step_budget=costed.step_budget,
        bound_seconds=costed.bound.overlapped,
        serial_seconds=costed.bound.serial,
        blend=BlendFacts(
            kept_sharing=plan.blend.kept_sharing,
            units=plan.blend.units,
            kv_peak_tokens=plan.blend.kv_peak,
            left_share=float(plan.blend.left_share.mean()),
        ),
        histogram=_histogram(costed),
        prefixes=_prefixes(costed, workload),
        orders=tuple(_order_row(each, each is plan.portfolio.chosen) for each in plan.portfolio.candidates),
        why=plan.portfolio.why,
        plain_seconds=plan.portfolio.plain.seconds,
        times=_times(plan),
        machines=machines or (machine_row(plan),),
        warnings=(*workload.warnings, *length_warnings(costed)),
        icicle=icicle(tree, plan.costed.demand, costed.machine, workload.name),
        timeline=planned_series(plan.portfolio.chosen.outcome.timeline),
        partition=_partition(plan),
        learned=_learned(plan),
        constants=_constants(plan),
        what_ifs=what_ifs,
        practical_seconds=plan.portfolio.practical_seconds,
    )


def _learned(plan: Plan) -> LearnedFacts | None:
    found = plan.costed.machine.learned
    if found is None or _times(plan) != "learned":
        return None
    return LearnedFacts(found.runs, found.date, found.error, found.sentence)


def _constants(plan: Plan) -> dict[str, Constant]:
    step = plan.portfolio.step
    return {name: Constant(getattr(step, name), str(step.origin.get(name, "prior"))) for name in CONSTANTS}


def _partition(plan: Plan) -> PartitionFacts | None:
    if plan.partition is None:
        return None
    compute, memory = plan.partition.imbalance()
    chosen = plan.portfolio.chosen
    return PartitionFacts(
        kept_sharing=plan.partition.kept_sharing,
        compute_off=compute,
        memory_off=memory,
        seconds=tuple(
            candidate.seconds
            for part in plan.parts
            for candidate in part.plan.portfolio.candidates
            if (candidate.order, candidate.overlap) == (chosen.order, chosen.overlap)
        ),
    )


def machine_row(plan: Plan) -> MachineRow:
    """The plan's answer for its machine."""
    chosen, costed = plan.portfolio.chosen, plan.costed
    return MachineRow(
        hardware=costed.machine.card.name,
        gpus=costed.machine.gpus,
        replicas=costed.pool.replicas,
        order=str(chosen.order),
        overlap=str(chosen.overlap),
        predicted_seconds=chosen.seconds,
        bound_seconds=costed.bound.overlapped,
        times=_times(plan),
        cost=chosen.cost,
        why_not=None,
    )


def unfit_row(hardware: str, gpus: int, why_not: str) -> MachineRow:
    """A machine on which the job cannot run."""
    return MachineRow(hardware, gpus, None, None, None, None, None, None, None, why_not)


def plan_json(report: PlanReport) -> bytes:
    """One line of JSON."""
    return msgspec.json.encode(report)


def plan_schema() -> bytes:
    """The JSON Schema of `plan_json`'s output."""
    return msgspec.json.format(msgspec.json.encode(msgspec.json.schema(PlanReport)), indent=2)


def length_warnings(plan: Costed) -> list[str]:
    """Answers that their bound will probably cut."""
    lengths = plan.structure.lengths
    # Expected lengths stop at the bound, so a mean this near to it says that many answers would go on.
    cut = (lengths.mean >= 0.9 * lengths.bound) & (lengths.bound > 16) & ~plan.structure.prompts.known
    count = int(cut.sum())
    return [f"{count:,} answers will probably be cut by max_tokens or the end of the context"] if count else []


def request_densities(plan: Costed) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Density of each leaf alone, its own segment and its answer: f64 (M,), infinite where nothing is decoded."""
    leaf = plan.structure.tree.leaf
    compute = plan.demand.flops[leaf] / plan.machine.flops
    memory = plan.demand.kv_bytes[leaf] / plan.machine.bandwidth
    densities = np.full(len(leaf), np.inf)
    np.divide(compute, memory, out=densities, where=memory > 0)
    return densities


def _order_row(candidate: Candidate, chosen: bool) -> OrderRow:
    budget = candidate.budget
    return OrderRow(
        name=str(candidate.order),
        overlap=str(candidate.overlap),
        hit_tokens=candidate.outcome.hit_tokens,
        predicted_seconds=candidate.seconds,
        bound_seconds=candidate.outcome.bound_seconds,
        tokens_per_second=candidate.tokens_per_second,
        step_budget=None if isinstance(budget, AdaptiveBudget) else budget.tokens,
        policy=policy_of(budget),
        cost=candidate.cost,
        chosen=chosen,
    )


def policy_of(budget: Budget) -> str:
    """The name of a policy of steps, with its setting."""
    match budget:
        case ConstantBudget():
            return "constant"
        case AdaptiveBudget():
            return "adaptive"
        case TurnsBudget():
            return f"turns, {budget.drained:.0%}"
        case CrossoverBudget():
            return "crossover"


def _times(plan: Plan) -> str:
    return times_rest_on(plan.portfolio.step)


def _hardware(plan: Costed) -> Hardware:
    card = plan.machine.card
    order = ("measured", "datasheet", "prior")
    figures: tuple[Figure, ...] = (card.achieved_flops, card.achieved_bandwidth)
    return Hardware(
        name=card.name,
        gpus=plan.machine.gpus,
        replicas=plan.pool.replicas,
        gpus_per_replica=plan.pool.gpus,
        pool_tokens=plan.pool.tokens,
        flops=plan.machine.flops,
        bandwidth=plan.machine.bandwidth,
        rates=max((figure.origin for figure in figures), key=order.index),
        shared_reads=plan.limits.shared_reads,
    )


def _histogram(plan: Costed) -> Histogram:
    places = np.searchsorted(_EDGES, request_densities(plan), side="right")
    return Histogram(_EDGES, tuple(np.bincount(places, minlength=len(_EDGES) + 1).tolist()))


def _prefixes(plan: Costed, workload: Described) -> tuple[Prefix, ...]:
    tree = plan.structure.tree
    compute = tree.subtree_sum(plan.demand.flops) / plan.machine.flops
    memory = tree.subtree_sum(plan.demand.kv_bytes) / plan.machine.bandwidth
    return tuple(
        Prefix(
            level=heavy.level,
            depth=heavy.depth,
            segment_tokens=heavy.segment,
            requests=heavy.requests,
            saved_tokens=heavy.saved,
            density=_finite(compute[heavy.node] / memory[heavy.node]) if memory[heavy.node] > 0 else None,
            example=workload.name(heavy.example),
        )
        for heavy in heaviest_prefixes(tree, _PREFIXES)
    )


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
