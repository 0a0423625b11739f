"""Step budgets worth trying for a job on a machine: constant ones around T*, the adaptive one, and those by turns."""

from __future__ import annotations

from dataclasses import replace

from blendrun.blend.budget import AdaptiveBudget, Budget, ConstantBudget, CrossoverBudget, TurnsBudget
from blendrun.cost.balance import Bound
from blendrun.cost.base import Demand
from blendrun.cost.capacity import KvPool
from blendrun.cost.step import LARGEST_STEP, RESIDENT_SHARE, TILE, step_budget
from blendrun.names import Overlap
from blendrun.simulate.base import StepTime

# Share of the rows with which a turn of prefill begins. Fewer rows cost more than small steps of prefill do, and those
# cost next to nothing where a step by itself does (docs/record/benchmarks.md#the-mode-of-each-step).
_DRAINED = 0.95
# A full pool lets steps pass without prefill, and others have to make up for them.
_HASTE = 1.25


def budgets_to_try(
    demand: Demand, pool: KvPool, step: StepTime, bound: Bound, decoded: float, chunk: int, *, thorough: bool
) -> dict[Overlap, list[Budget]]:
    """Budgets of one engine by mode; steps of exclusive mode keep the engine's own chunk.

    bound: of its job. decoded: its output tokens. chunk: the engine's own.
    thorough: T*, T* of the pool's usual filling (RESIDENT_SHARE), half of that, the engine's chunk, the adaptive one
        as it is and hastier, and in exclusive mode turns, where a step has a cost of its own; else only the second, on
        pdmux the adaptive ones, and no turns.
    Where mixing costs something (`StepTime.mixed`), each constant budget of mixed steps is tried with a crossover too.
    """
    compute, reads = float(demand.compute_tokens.sum()), float(demand.kv_bytes.sum())
    usual = step_budget(compute, reads, pool.bytes, resident=RESIDENT_SHARE)
    constant = [usual]
    if thorough:
        constant = sorted({usual, step_budget(compute, reads, pool.bytes), max(usual // 2 // TILE * TILE, TILE), chunk})
    adaptive = adaptive_budget(pool, step, bound, decoded, most=min(chunk, LARGEST_STEP))
    hasty = replace(adaptive, ratio=_HASTE * adaptive.ratio)
    fixed: list[Budget] = [ConstantBudget(tokens) for tokens in constant]
    adapting: list[Budget] = [adaptive, hasty]
    turns: list[Budget] = [TurnsBudget(chunk, _DRAINED)] if thorough and step.step > 0 else []
    crossing: list[Budget] = [crossover_budget(tokens, chunk, step) for tokens in constant] if step.mixed > 0 else []
    return {
        Overlap.EXCLUSIVE: [ConstantBudget(chunk), *turns],
        Overlap.MIXED: fixed + crossing + (adapting if thorough else []),
        Overlap.PDMUX: fixed + adapting,
    }


def adaptive_budget(pool: KvPool, step: StepTime, bound: Bound, decoded: float, *, most: int) -> AdaptiveBudget:
    """Each step divides its time between prefill and decoding as the whole job does.

    Arguments as of `budgets_to_try`; most: prefill tokens of a step at most.
    """
    return AdaptiveBudget(
        floor=TILE,
        most=most,
        ratio=_streams_ratio(pool, step, bound, decoded),
        weight_tokens=step.weights / step.prefill_token,
        row_tokens=step.decode_token / step.prefill_token,
        cached_tokens=step.kv_token / step.prefill_token,
    )


def crossover_budget(tokens: int, chunk: int, step: StepTime) -> CrossoverBudget:
    """Steps of `tokens` that mix where that is sooner, else of prefill alone, the engine's own chunk."""
    return CrossoverBudget(
        tokens=tokens,
        alone=chunk,
        mixed=step.mixed,
        weight_tokens=step.weights / step.prefill_token,
        row_tokens=step.decode_token / step.prefill_token,
        cached_tokens=step.kv_token / step.prefill_token,
    )


def _streams_ratio(pool: KvPool, step: StepTime, bound: Bound, decoded: float) -> float:
    """Seconds of all prefill over seconds of all decoding, each as a stream of its own, in a pool filled as usual.

    It is less than the job's density: decode rows need arithmetic too, and every step of them reads the weights.
    """
    memory = bound.memory
    # A model whose layers all have a sliding window reads by the row, not by the cached token.
    steps = memory / (step.kv_token * RESIDENT_SHARE * pool.tokens) if step.kv_token > 0 else 0.0
    if steps < 1:
        return 1.0
    arithmetic = step.decode_token * decoded
    prefill = max(bound.compute - arithmetic, 0.0)
    return prefill / (memory + max(step.weights * steps, arithmetic))
