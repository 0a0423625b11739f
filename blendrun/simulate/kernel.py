"""The simulated engine: continuous batching over a prefix tree, step by step, with steps alike taken together.

Everything a step needs is a sum that is kept up to date, so a step costs the same whatever its batch, and a request
costs the length of its path in the tree and a look at what runs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendrun.simulate.admission import anything_waits, fill
from blendrun.simulate.batch import begin_decode, decode, end_requests, forget_overdue, prefill, retract
from blendrun.simulate.pool import publish
from blendrun.simulate.seconds import prefill_budget, record, step_seconds
from blendrun.simulate.state import EXCLUSIVE, NODE, REQUEST, STATE, Number
from blendrun.tree.compiled import BOOL_IN, F64_IN, F64_OUT, F64_TABLE_OUT, I64_IN, I64_OUT, compiled, inlined

BUCKETS = 512
COLUMNS = 9


@inlined
def _alike(state: Any, ends: Any, waits: bool) -> Number:
    """Decode steps from here that differ in nothing but the context's growth.

    Until an end nothing can change but what depends on time itself: look-ahead, pace and an adaptive budget.
    waits: whether anything waits for admission or for its next chunk.
    """
    if waits and (state.reserve < 0.0 or state.paced or state.most > 0):
        return 1
    room = (state.pool - state.used + state.evictable) // max(state.rows, 1)
    return max(min(ends[0] // state.requests - state.decoded, room), 1)


@inlined
def _empty_list() -> Any:
    # A list's type is that of its first element, so each begins with one.
    numbers = [np.int64(0)]
    numbers.clear()
    return numbers


@compiled(
    *(NODE, REQUEST, STATE, I64_IN, F64_IN, F64_IN, F64_IN, F64_IN, BOOL_IN, BOOL_IN, I64_OUT),
    *(F64_OUT, F64_OUT, F64_OUT, F64_IN, F64_IN, F64_OUT, F64_OUT, F64_TABLE_OUT),
)
def run(
    nodes: NDArray[np.void],
    work: NDArray[np.void],
    states: NDArray[np.void],
    unit: NDArray[np.int64],
    compute: NDArray[np.float64],
    memory: NDArray[np.float64],
    density: NDArray[np.float64],
    reads: NDArray[np.float64],
    keep_left: NDArray[np.bool_],
    keep_right: NDArray[np.bool_],
    order: NDArray[np.int64],
    expected_ends: NDArray[np.float64],
    freed: NDArray[np.float64],
    alive: NDArray[np.float64],
    shares: NDArray[np.float64],
    rates: NDArray[np.float64],
    finished: NDArray[np.float64],
    bucket: NDArray[np.float64],
    line: NDArray[np.float64],
) -> None:
    """Feed the M requests of `work` to the engine of `states`, an array of one; what came of it is in there afterwards.

    nodes (K + 2,), work (M,), states (1,): records of `state`, as `simulator` makes them. unit to keep_right: of a
    blend's `ScanRow`. order: i64 (M,), 0 to M - 1; the tail is sorted in it. expected_ends, freed, alive: room for M
    each. shares, rates: the table of `overlapped`.
    finished: f64 (M,), the second each request ended. bucket (COLUMNS,): room. line: f64 (BUCKETS, COLUMNS), time line.
    """
    state = states[0]
    row, agenda = (unit, compute, memory, density, reads, keep_left, keep_right, order), (expected_ends, freed, alive)
    ends, back, filling = _empty_list(), _empty_list(), _empty_list()
    while True:
        end_requests(state, nodes, work, agenda, ends, finished)
        if state.done == len(work):
            return
        forget_overdue(state, agenda)
        hits, budget = state.hits, prefill_budget(state)
        new = fill(state, nodes, work, agenda, row, back, filling, budget)
        taken, square, done = prefill(state, nodes, work, filling, budget)
        rows, steps = np.int64(0), np.int64(1)
        if state.rows > 0 and (taken == 0 or state.mode != EXCLUSIVE):
            retracted = state.retracted
            retract(state, nodes, work, agenda, ends, back)
            rows = state.rows
            # The rows sent back leave room, in the pool and in the budget, for what this step could not take.
            if taken == 0 and rows > 0 and state.retracted == retracted and state.published == state.filled:
                steps = _alike(state, ends, state.pending > 0 or anything_waits(state, back))
        context = state.context + rows * (steps + 1) / 2 if rows > 0 else 0.0
        seconds, arithmetic, reading = 0.0, 0.0, 0.0
        if taken > 0 or rows > 0:
            seconds, arithmetic, reading = step_seconds(state, taken, square, rows, context, new, shares, rates)
            state.steps += steps
        state.now += seconds * steps
        state.compute += arithmetic * steps
        state.memory += reading * steps
        if rows > 0:
            decode(state, nodes, steps)
        for place in range(state.filled, state.filled + done):
            begin_decode(state, work, agenda, ends, filling[place])
        known = state.filled if state.late else state.filled + done
        for place in range(state.published, known):
            publish(nodes, work[filling[place]].leaf, work[filling[place]].length)
        state.published = known
        state.filled += done
        if taken == 0 and rows == 0:
            # No step: the scheduler waited for a result.
            continue
        bucket[0], bucket[1], bucket[2], bucket[3] = steps, seconds * steps, arithmetic * steps, reading * steps
        bucket[4], bucket[5], bucket[6] = taken, rows * steps, state.hits - hits
        bucket[7], bucket[8] = state.used - state.evictable, state.rows
        record(state, line, bucket)
