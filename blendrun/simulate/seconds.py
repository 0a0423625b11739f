"""How many tokens a step takes, and how long it lasts."""

from __future__ import annotations

from typing import Any

import numpy as np

from blendrun.simulate.state import EXCLUSIVE, MIXED, PDMUX, Number
from blendrun.tree.compiled import inlined


@inlined
def overlapped(one: float, other: float, shares: Any, rates: Any) -> float:
    """Seconds of two streams side by side on parts of one device: the best split of the table.

    docs/paper.md#the-practical-optimum.
    shares: part of the device that `one` gives up. rates: share of its full rate that `other` then has.
    """
    best = one + other
    for place in range(len(shares)):
        share, rate = shares[place], rates[place]
        if rate <= 0.0 or share >= 1.0:
            continue
        first, second = one / (1.0 - share), other / rate
        beside = second + (one - (1.0 - share) * second)
        if first < second:
            beside = first + (other - rate * first)
        best = min(best, beside)
    return best


@inlined
def weight_seconds(state: Any, tokens: Number) -> float:
    """Reading the weights that so many tokens touch; a mixture of experts reads fewer for a few."""
    if state.experts == 0.0:
        return float(state.weights)
    return float(state.weights - state.experts * state.expert_miss**tokens)


@inlined
def prefill_budget(state: Any) -> Number:
    """Most prefill tokens of the next step, and whether rows decode in it too: the policies of `blend.budget`."""
    state.apart = 1 if state.mode == EXCLUSIVE or (state.turns > 0 and state.mode != PDMUX) else 0
    if state.turns > 0:
        if state.rows <= state.drained * state.most_rows:
            state.filling = 1
        return state.tokens * state.filling
    if state.mode == EXCLUSIVE:
        return state.tokens
    tokens = state.tokens - state.rows
    if state.most > 0:
        beside = max(state.weight_tokens, state.row_tokens * state.rows)
        beside += state.cached_tokens * (state.context + state.rows)
        tokens = max(tokens, min(int(state.ratio * beside), state.most))
    elif state.crossing > 0.0 and state.mode == MIXED:
        prefill, rows = max(tokens, 0), state.row_tokens * state.rows
        saved = prefill * max(1.0, state.weight_tokens / state.alone)
        saved += max(rows, state.weight_tokens) - max(prefill + rows, state.weight_tokens)
        if state.crossing * state.cached_tokens * (state.context + state.rows) > saved:
            state.apart, tokens = 1, state.alone
    return max(tokens, 0)


@inlined
def end_turn(state: Any, taken: Number) -> None:
    """Prefill's turn is over where nothing came in, unless what is computed just then is about to let others in."""
    if state.turns > 0 and state.filling > 0 and taken == 0 and state.published == state.filled:
        state.filling, state.most_rows = 0, state.rows


@inlined
def step_seconds(
    state: Any, prefill: Number, square: float, rows: Number, context: float, new: Number, shares: Any, rates: Any
) -> tuple[float, float, float]:
    """Seconds of a step; of its arithmetic and its KV reads, each alone."""
    compute = state.prefill_token * prefill + state.decode_token * rows + state.prefill_square * square
    memory = state.kv_token * context
    other = state.step + state.request * new + state.row * rows
    if state.mode == PDMUX and prefill > 0 and rows > 0:
        one = max(state.prefill_token * prefill, weight_seconds(state, prefill)) + state.prefill_square * square
        two = max(state.decode_token * rows, weight_seconds(state, rows)) + memory
        return other + overlapped(one, two, shares, rates), compute, memory
    gemm = max(state.prefill_token * prefill + state.decode_token * rows, weight_seconds(state, prefill + rows))
    reads = memory
    if prefill > 0 and rows > 0:
        reads += state.mixed * memory
    return other + gemm + state.prefill_square * square + reads, compute, memory


@inlined
def draft_seconds(state: Any, rows: Number, context: float) -> tuple[float, float, float]:
    """The same of a step that decodes with drafts, over the tokens by which an answer grows in it."""
    checked = rows * (1 + state.drafts)
    compute, memory = state.decode_token * checked, state.kv_token * context
    gemm = max(compute, weight_seconds(state, checked))
    seconds = state.step + state.row * rows + gemm + memory
    return seconds / state.draft_tokens, compute / state.draft_tokens, memory / state.draft_tokens


@inlined
def record(state: Any, line: Any, step: Any) -> None:
    """Add a step, or several alike, to the timeline; where its buckets run out, pairs are joined.

    step: what to add, by the columns of `line`: steps first; the last two are states and replace what is there.
    """
    buckets, columns = line.shape
    while state.steps > buckets * state.bucket:
        _join_pairs(line)
        state.bucket *= 2
    begin = state.steps - np.int64(step[0])
    while begin < state.steps:
        place = begin // state.bucket
        upto = min((place + 1) * state.bucket, state.steps)
        for column in range(columns - 2):
            line[place, column] += step[column] * (upto - begin) / step[0]
        line[place, columns - 2], line[place, columns - 1] = step[columns - 2], step[columns - 1]
        begin = upto


@inlined
def _join_pairs(line: Any) -> None:
    buckets, columns = line.shape
    for bucket in range(buckets):
        for column in range(columns):
            value = 0.0
            if 2 * bucket + 1 < buckets:
                value = line[2 * bucket + 1, column]
                if column < columns - 2:
                    value += line[2 * bucket, column]
            line[bucket, column] = value
