"""What an order would take: the kernel behind typed values."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendrun.blend.agenda import empty_agenda
from blendrun.blend.base import Blend, Order
from blendrun.blend.budget import AdaptiveBudget, Budget, ConstantBudget, CrossoverBudget, TurnsBudget
from blendrun.blend.scan_row import ScanRow
from blendrun.names import Overlap
from blendrun.simulate import kernel, state
from blendrun.simulate.base import Eviction, Outcome, SimulatedEngine, StepTime, Timeline
from blendrun.tokens.base import Prompts
from blendrun.tree.base import PrefixTree

MODES = {Overlap.EXCLUSIVE: state.EXCLUSIVE, Overlap.MIXED: state.MIXED, Overlap.PDMUX: state.PDMUX}
# NanoFlow's interference table (docs/paper.md#the-practical-optimum): share of the device that the products give up,
# and the share of its full rate that decode attention then has; A100. Points between are interpolated, so that the
# best split is not one of seven.
_GIVEN_UP = np.array([0.0, 0.1, 0.2, 0.4, 0.8, 0.9, 1.0])
_RATE = np.array([0.0, 0.2, 0.3, 0.8, 0.85, 0.95, 1.0])
SHARES = np.linspace(0.0, 1.0, 41)
RATES = np.interp(SHARES, _GIVEN_UP, _RATE)


def simulate(
    tree: PrefixTree,
    prompts: Prompts,
    fed: Order | Blend,
    outputs: NDArray[np.int64],
    step: StepTime,
    engine: SimulatedEngine,
    *,
    expected: NDArray[np.int64] | None = None,
    limits: NDArray[np.int64] | None = None,
    fixed: NDArray[np.bool_] | None = None,
    ends: bool = True,
) -> Outcome:
    """Feed an order from its front, or a blend from both of its ends, to the engine's model.

    outputs: i64 (M,), true output tokens of one choice of each prompt, in input order.
    expected: i64 (M,), what admission believes; None where it knows.
    limits: i64 (M,), output tokens of one choice at most, by which SGLang's own admission goes; None for `expected`.
    fixed: bool (M,), whose answers nothing else can end; None for none.
    ends: whether to keep when each request ended.
    """
    prompt = fed.row_prompt if isinstance(fed, Blend) else fed.prompt
    count = len(prompt)
    believed = outputs if expected is None else expected
    work = _work(tree, prompts, prompt, outputs, believed)
    work["limit"] = believed[prompt] if limits is None else limits[prompt]
    work["fixed"] = 0 if fixed is None else fixed[prompt]
    row = _cursor(fed.row) if isinstance(fed, Blend) else _one_end(count)
    unit, compute, memory, density, reads, keep_left, keep_right = row
    states = _state(engine, step, count)
    states["sided"] = isinstance(fed, Blend)
    states["rest_compute"], states["rest_memory"] = compute.sum(), memory.sum()
    if isinstance(fed, Blend):
        work["size"], work["reach"] = fed.row.size, fed.row.held.reach
        states["tail"], states["rest_size"] = state.TAIL_TO_COME, fed.row.size.sum()
    finished, line = np.zeros(count), np.zeros((kernel.BUCKETS, kernel.COLUMNS))
    kernel.run(
        _nodes(tree),
        work,
        states,
        *(unit, compute, memory, density, reads, keep_left, keep_right, np.arange(count)),
        *empty_agenda(min(int(believed.max(initial=0)), engine.pool_tokens)),
        *(SHARES, RATES, finished, np.zeros(kernel.COLUMNS), line),
    )
    end = states[0]
    used = line[: np.count_nonzero(line[:, 0])]
    return Outcome(
        seconds=float(end["now"]),
        compute_seconds=float(end["compute"]),
        memory_seconds=float(end["memory"]),
        hit_tokens=int(end["hits"]),
        prefill_tokens=int(end["prefilled"]),
        recomputed_tokens=int(end["recomputed"]),
        decode_tokens=int(end["emitted"]),
        steps=int(end["steps"]),
        retractions=int(end["retracted"]),
        timeline=Timeline(*(np.ascontiguousarray(column) for column in used.T)),
        finished=finished if ends else finished[:0].copy(),
        loaded_tokens=int(end["loaded"]),
    )


def _cursor(row: ScanRow) -> tuple[NDArray[Any], ...]:
    held = row.held
    return row.unit, held.compute, held.memory, row.density, row.reads, row.keep_left, row.keep_right


def _one_end(count: int) -> tuple[NDArray[Any], ...]:
    """A row of a single unit is read from its left end alone."""
    nothing, one, never = np.zeros(count), np.ones(1), np.zeros(count, dtype=np.bool_)
    return np.zeros(count, dtype=np.int64), nothing, nothing, one, one, never, never


def _nodes(tree: PrefixTree) -> NDArray[np.void]:
    """The tree's nodes and, behind them, the two rings of `pool`."""
    count = len(tree)
    nodes = np.zeros(count + 2, dtype=state.NODE)
    nodes["parent"][:count], nodes["depth"][:count] = tree.parent, tree.depth
    nodes["waiting"][:count] = tree.leaf_end - tree.leaf_begin
    nodes["state"][0] = state.READY
    rings = np.array([count, count + 1], dtype=np.int32)
    nodes["newer"][count:], nodes["older"][count:] = rings, rings
    return nodes


def _work(
    tree: PrefixTree,
    prompts: Prompts,
    prompt: NDArray[np.int64],
    outputs: NDArray[np.int64],
    believed: NDArray[np.int64],
) -> NDArray[np.void]:
    work = np.zeros(len(prompt), dtype=state.REQUEST)
    work["leaf"] = tree.leaf[tree.position[prompt]]
    work["length"], work["choices"] = prompts.prompt_tokens[prompt], prompts.choices[prompt]
    work["output"], work["expected"] = outputs[prompt], believed[prompt]
    work["parts"] = 1
    if prompts.parts is not None:
        parts = prompts.parts.take(prompt)
        work["parts"], work["first"], work["common"] = parts.count, parts.first, parts.common
        # Each is a row of its own, of those that want several answers as of those that are read.
        work["choices"] = np.maximum(work["choices"], parts.count)
    work["ends_at"] = -1
    return work


def _state(engine: SimulatedEngine, step: StepTime, count: int) -> NDArray[np.void]:
    states = np.zeros(1, dtype=state.STATE)
    values: dict[str, float] = {
        "pool": engine.pool_tokens,
        "mode": MODES[engine.overlap],
        "max_running": engine.max_running,
        "gate": engine.gate_tokens if engine.gate else 0,
        "next_use": engine.eviction is Eviction.NEXT_USE,
        "paced": engine.paced,
        "shared": engine.shared_reads or 0,
        "late": engine.late and engine.overlap is not Overlap.PDMUX,
        "reserve": engine.reserve,
        "guess": engine.reserve,
        "refresh": engine.refresh,
        "clip": engine.clip,
        "requests": count,
        "right_at": count - 1,
        "share": 1.0,
        "share_left": -1,
        "share_right": -1,
        "bucket": 1,
    }
    if engine.drafts is not None:
        drafts = engine.drafts
        values |= {"drafts": drafts.count, "draft_rows": drafts.rows, "draft_tokens": drafts.tokens}
    if engine.host is not None:
        values |= {"host": engine.host.tokens, "host_token": engine.host.token_seconds}
    values |= {name: float(getattr(step, name)) for name in state.CONSTANTS}
    for name, value in (values | _policy(engine.budget)).items():
        states[name] = value
    return states


def _policy(budget: Budget) -> dict[str, float]:
    match budget:
        case ConstantBudget():
            return {"tokens": budget.tokens}
        case AdaptiveBudget():
            return {"tokens": budget.floor} | {name: getattr(budget, name) for name in state.POLICY}
        case TurnsBudget():
            return {"tokens": budget.tokens, "turns": 1, "filling": 1, "drained": budget.drained}
        case CrossoverBudget():
            rates = {name: getattr(budget, name) for name in ("weight_tokens", "row_tokens", "cached_tokens")}
            return rates | {"tokens": budget.tokens, "alone": budget.alone, "crossing": budget.mixed}
