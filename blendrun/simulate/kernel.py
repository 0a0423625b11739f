"""The simulated engine: continuous batching over a prefix tree, step by step, with steps alike taken together.

Everything a step needs is a sum that is kept up to date, so a step costs the same whatever its batch, and a request
costs the length of its path in the tree and a look at what runs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendrun.blend.agenda import BLOCK, END
from blendrun.simulate.admission import anything_waits, fill
from blendrun.simulate.agenda import forget_overdue
from blendrun.simulate.batch import begin_decode, begin_round, decode, end_requests, prefill, retract
from blendrun.simulate.own import note_decoded, note_kept, open_again
from blendrun.simulate.pool import publish
from blendrun.simulate.seconds import draft_seconds, end_turn, prefill_budget, record, step_seconds
from blendrun.simulate.state import MIXED, NODE, PDMUX, REQUEST, STATE, Number
from blendrun.tree.compiled import BOOL_IN, F64_IN, F64_OUT, F64_TABLE_OUT, I64_IN, I64_OUT, compiled, inlined

BUCKETS = 512
COLUMNS = 9


@inlined
def _alike(state: Any, ends: Any, waits: bool) -> Number:
    """Decode steps from here that differ in nothing but the context's growth.

    Until an end nothing can change but what depends on time itself: look-ahead, SGLang's own guess at what is to come
    where it still looks, pace and an adaptive budget.
    waits: whether anything waits for admission or for its next chunk.
    """
    looks = state.turns == 0 or state.filling > 0 or state.rows <= state.drained * state.most_rows
    if waits and looks and (not state.shut or state.opens or state.most > 0 or state.crossing > 0.0):
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
    *(END, BLOCK, F64_IN, F64_IN, F64_OUT, F64_OUT, F64_TABLE_OUT),
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
    expected_ends: NDArray[np.void],
    blocks: NDArray[np.void],
    shares: NDArray[np.float64],
    rates: NDArray[np.float64],
    finished: NDArray[np.float64],
    bucket: NDArray[np.float64],
    line: NDArray[np.float64],
) -> None:
    """Feed the M requests of `work` to the engine of `states`, an array of one; what came of it is in there afterwards.

    nodes (K + 2,), work (M,), states (1,): records of `state`, as `simulator` makes them. unit to keep_right: of a
    blend's `ScanRow`. order: i64 (M,), 0 to M - 1; the tail is sorted in it. expected_ends, blocks: of `empty_agenda`.
    shares, rates: the table of `overlapped`.
    finished: f64 (M,), the second each request ended. bucket (COLUMNS,): room. line: f64 (BUCKETS, COLUMNS), time line.
    """
    state = states[0]
    row, agenda = (unit, compute, memory, density, reads, keep_left, keep_right, order), (expected_ends, blocks)
    ends, back, filling = _empty_list(), _empty_list(), _empty_list()
    while True:
        held, over = state.used - state.evictable, state.done
        waits = anything_waits(state, back)
        if state.late:
            note_kept(state, work, ends, filling, waits)
        end_requests(state, nodes, work, agenda, ends, finished)
        if state.done == len(work):
            return
        if not state.late:
            note_kept(state, work, ends, filling, waits)
        open_again(state, state.done > over, held)
        forget_overdue(state, agenda)
        begin_round(state, work, filling)
        hits, budget = state.hits, prefill_budget(state)
        new = fill(state, nodes, work, agenda, row, back, filling, budget)
        taken, square, done = prefill(state, nodes, work, filling, budget)
        rows, steps, back_before = np.int64(0), np.int64(1), state.retracted
        if taken > 0 or state.kept_back == 0:
            end_turn(state, taken)
        if state.rows > 0 and (taken == 0 or state.apart == 0):
            retract(state, nodes, work, agenda, ends, back)
            rows = state.rows
            # The rows sent back leave room, in the pool and in the budget, for what this step could not take.
            alone = taken == 0 and state.kept_back == 0 and state.published == state.filled
            if alone and rows > 0 and state.retracted == back_before:
                steps = _alike(state, ends, state.pending > 0 or anything_waits(state, back))
        # Rows that share a pass with prefill go through the kernel made for prefill, and share nothing.
        spared = state.spared if taken == 0 or state.mode != MIXED else np.int64(0)
        context = state.context - spared + rows * (steps + 1) / 2 if rows > 0 else 0.0
        seconds, arithmetic, reading = 0.0, 0.0, 0.0
        if taken > 0 or rows > 0:
            seconds, arithmetic, reading = step_seconds(state, taken, square, rows, context, new, shares, rates)
            if state.drafts > 0 and taken == 0 and rows <= state.draft_rows:
                seconds, arithmetic, reading = draft_seconds(state, rows, context)
            seconds += state.host_token * state.loading
            state.loaded += state.loading
            state.loading = 0
            state.steps += steps
        state.now += seconds * steps
        state.compute += arithmetic * steps
        state.memory += reading * steps
        if rows > 0:
            decode(state, nodes, steps)
            if (taken == 0 or state.mode == PDMUX) and state.retracted == back_before:
                note_decoded(state, steps)
        if taken > 0 and state.filled + done < len(filling):
            # SGLang takes a prompt that is half in out of the step's rows, and looks again.
            state.opens = 1
        for number in range(state.filled, state.filled + done):
            begin_decode(state, nodes, work, agenda, ends, filling[number])
        known = state.filled if state.late else state.filled + done
        for number in range(state.published, known):
            publish(nodes, work[filling[number]].leaf, work[filling[number]].length)
            state.twice -= work[filling[number]].twice
            work[filling[number]].twice = 0
        state.published = known
        state.filled += done
        if taken == 0 and rows == 0:
            # No step: the scheduler waited for a result.
            continue
        bucket[0], bucket[1], bucket[2], bucket[3] = steps, seconds * steps, arithmetic * steps, reading * steps
        bucket[4], bucket[5], bucket[6] = taken, rows * steps, state.hits - hits
        bucket[7], bucket[8] = state.used - state.evictable, state.rows
        record(state, line, bucket)
