"""The report of a plan: every fact that `blendrun plan --json` prints, taken from it."""

from __future__ import annotations

import math

import numpy as np

from blendrun.blend.budget import AdaptiveBudget, Budget, ConstantBudget, CrossoverBudget, TurnsBudget
from blendrun.cost.base import Figure
from blendrun.lengths.estimate import length_report
from blendrun.planner.findings import answer_findings, worst_first
from blendrun.planner.plan import Costed, Plan
from blendrun.planner.workload import Described
from blendrun.report.schemas.icicle import icicle
from blendrun.report.schemas.plan import (
    SCHEMA_VERSION,
    BlendFacts,
    Constant,
    Hardware,
    Histogram,
    LearnedFacts,
    MachineRow,
    OrderRow,
    PartitionFacts,
    PlanReport,
    Prefix,
)
from blendrun.report.schemas.series import planned_series
from blendrun.report.schemas.what_if import WhatIfRow
from blendrun.simulate.portfolio import Candidate
from blendrun.simulate.steptime import CONSTANTS, times_rest_on
from blendrun.tree.heavy import heaviest_prefixes
from blendrun.version import __version__

# Edges of the density histogram: powers of two around 1, where compute and memory weigh the same.
_EDGES = tuple(2.0**power for power in range(-6, 9))
_PREFIXES = 20


def plan_report(
    plan: Plan,
    workload: Described,
    machines: tuple[MachineRow, ...] = (),
    what_ifs: tuple[WhatIfRow, ...] = (),
    gpu_hour: float | None = None,
) -> PlanReport:
    """Everything the plan says, as one value. machines: where other machines were asked for too. gpu_hour: the price
    of an hour of one of its devices, None where nobody said."""
    costed = plan.costed
    tree, lengths = costed.structure.tree, costed.structure.lengths
    # A run has found both where it was planned; what is the same is said once.
    findings = worst_first(dict.fromkeys((*workload.findings, *answer_findings(costed.structure.prompts, lengths))))
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
        # The planner has what is only read as an answer of one token: a step in which it ends.
        output_tokens=round(max(costed.output_tokens - workload.only_read, 0.0), 1),
        lengths=length_report(lengths),
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
        machines=machines or (machine_row(plan, gpu_hour),),
        warnings=tuple(each.message for each in findings),
        findings=findings,
        icicle=icicle(tree, plan.costed.demand, costed.machine, workload.name, words=workload.words),
        timeline=planned_series(plan.portfolio.chosen.outcome.timeline),
        partition=_partition(plan),
        learned=_learned(plan),
        constants=_constants(plan),
        what_ifs=what_ifs,
        practical_seconds=plan.portfolio.practical_seconds,
        copies=workload.copies,
        cached=workload.cached,
        gpu_hour=gpu_hour,
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


def machine_row(plan: Plan, gpu_hour: float | None = None) -> MachineRow:
    """The plan's answer for its machine. gpu_hour: as of `plan_report`."""
    chosen, costed = plan.portfolio.chosen, plan.costed
    return MachineRow(
        hardware=costed.machine.card.name,
        gpus=costed.machine.gpus,
        replicas=costed.pool.replicas,
        order=str(chosen.order),
        overlap=str(chosen.overlap),
        predicted_seconds=chosen.seconds,
        bound_seconds=plan.portfolio.practical_seconds,
        times=_times(plan),
        cost=chosen.cost,
        why_not=None,
        gpu_hour=gpu_hour,
    )


def unfit_row(hardware: str, gpus: int, why_not: str) -> MachineRow:
    """A machine on which the job cannot run."""
    return MachineRow(hardware, gpus, None, None, None, None, None, None, None, why_not)


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
        eligible=candidate.eligible,
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
