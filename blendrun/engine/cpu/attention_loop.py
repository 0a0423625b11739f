"""Attention as compiled loops that read keys and values where they lie in the pool, block by block.

A piece of work is some rows (new tokens) of one batch on a range of one list of slots. Query heads that share a key
head, of all rows of the piece, are the rows of one product, so a key is read once for all of them. Softmax is taken
online: a row that is in several pieces has a partial result of each, and these are merged.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numba import carray
from numpy.typing import NDArray

from blendrun.engine.cpu.arithmetic import exp_of_negative
from blendrun.engine.cpu.instructions import (
    LANES,
    NARROW,
    ROWS,
    WIDE,
    fetch_add,
    pointer,
    prefetch,
    product_narrow,
    product_wide,
    real_of,
    turn,
)
from blendrun.tree.compiled import I64, compiled, inlined, reordered

Numbers = NDArray[np.int64]
Reals = NDArray[np.float32]

# Keys that are looked at together; the columns of a product.
BLOCK = WIDE
# Rows of one piece of work.
MOST_ROWS = 64


class Job(IntEnum):
    """Places in a job: integers, those with a name in -S are addresses. It begins with the counter of `team`."""

    COUNTER = 0
    PIECES = 1
    PIECES_S = 2
    ROWS_S = 3
    LIMITS_S = 4
    SLOTS_S = 5
    QUERY_S = 6
    QUERY_STRIDE = 7
    OUTPUT_S = 8
    OUTPUT_STRIDE = 9
    KEYS_S = 10
    VALUES_S = 11
    HEADS_EACH = 12
    KV_HEADS = 13
    HEAD_SIZE = 14
    SCALE_BITS = 15
    PARTS_S = 16
    SCRATCH_S = 17
    SCRATCH_SIZE = 18
    THREADS_IN = 19
    NUMBERS_S = 20
    MERGES = 21
    MERGES_S = 22
    MERGED_PARTS_S = 23
    SIZE = 24


class Piece(IntEnum):
    """Places in a piece of work. part: of its first row, -1 where the result is whole."""

    FIRST_ROW = 0
    ROWS = 1
    SLOTS = 2
    START = 3
    END = 4
    FIRST_HEAD = 5
    LAST_HEAD = 6
    PART = 7
    SIZE = 8


_PIECE = int(Piece.SIZE)
_JOB = int(Job.SIZE)
_COUNTER, _THREADS_IN = 8 * int(Job.COUNTER), 8 * int(Job.THREADS_IN)
(_PIECES, _PIECES_S, _ROWS_S, _LIMITS_S, _SLOTS_S, _QUERY_S, _QUERY_STRIDE, _OUTPUT_S, _OUTPUT_STRIDE, _KEYS_S,
 _VALUES_S, _HEADS_EACH, _KV_HEADS, _HEAD_SIZE, _SCALE_BITS, _PARTS_S, _SCRATCH_S, _SCRATCH_SIZE, _, _NUMBERS_S,
 _MERGES, _MERGES_S, _MERGED_PARTS_S) = (
    int(place) for place in list(Job)[1:-1]
)  # fmt: skip
(_FIRST_ROW, _ROWS, _SLOTS, _START, _END, _FIRST_HEAD, _LAST_HEAD, _PART) = (int(place) for place in list(Piece)[:-1])
_WORD, _REAL, _LINE = 8, 4, 64

_F = np.float32
_ZERO, _ONE, _NEVER = _F(0), _F(1), _F(-3e38)


def scratch_size(rows: int, heads_each: int, kv_heads: int, head_size: int) -> int:
    """Float32 values that a thread needs beside the pieces: for queries, scores, keys turned, and sums."""
    queries = _padded(rows * heads_each)
    return kv_heads * queries * (2 * head_size + 2) + queries * BLOCK + head_size * BLOCK


@inlined
def _padded(queries: int) -> int:
    return (queries + ROWS - 1) // ROWS * ROWS


@reordered
def _largest(row: Reals, least: np.float32) -> np.float32:
    for i in range(BLOCK):
        least = max(least, row[i])
    return least


@reordered
def _sum_of_exp(row: Reals, largest: np.float32) -> np.float32:
    """Replaces the values of a row by exp(each - largest), and gives their sum."""
    total = _ZERO
    for i in range(BLOCK):
        p = exp_of_negative(row[i] - largest)
        row[i] = p
        total += p
    return total


@inlined
def _softmax(scores: Reals, queries: int, largest: Reals, totals: Reals, sums: Reals) -> None:
    """One block more: scores (queries, BLOCK) become weights, and what was summed before is scaled to them."""
    for i in range(queries):
        before = largest[i]
        now = _largest(scores[i], before)
        if now > before:
            factor = exp_of_negative(before - now)
            totals[i] *= factor
            row = sums[i]
            for d in range(row.size):
                row[d] *= factor
            largest[i] = now
        totals[i] += _sum_of_exp(scores[i], now)


@inlined
def _turn(keys: int, stride: int, size: int, places: int, n: int, turned: int) -> None:
    """Keys of n slots as columns: turned is (head size, BLOCK). keys: address of one head's in slot 0."""
    for t in range(0, n, LANES):
        for d in range(0, size, LANES):
            column = turned + _REAL * (BLOCK * d + t)
            turn(column, BLOCK, keys + _REAL * d, stride, places + _WORD * t, min(n - t, LANES) - 1)


@inlined
def _fetch(job: Numbers, piece: Numbers, places: int, first: int, turn: int) -> None:
    """A share of the keys and values of the next block, which lie anywhere: while this one is computed.

    places: address of this block's slots. first: number of the next one's first key. turn: which key head is next here.
    """
    n = min(BLOCK, piece[_END] - first)
    if n <= 0:
        return
    size, heads = job[_HEAD_SIZE], piece[_LAST_HEAD] - piece[_FIRST_HEAD]
    slots = carray(pointer(places + _WORD * BLOCK), (n,), np.int64)
    for t in range(n * turn // heads, n * (turn + 1) // heads):
        offset = _REAL * size * (job[_KV_HEADS] * slots[t] + piece[_FIRST_HEAD])
        for line in range(0, _REAL * heads * size, _LINE):
            prefetch(job[_KEYS_S] + offset + line)
            prefetch(job[_VALUES_S] + offset + line)


@inlined
def _hide(scores: Reals, first_key: int, limits: Numbers, heads_each: int) -> None:
    """What lies behind a row's own token, or behind the end of a list, is not for it."""
    for row in range(limits.size):
        for i in range(row * heads_each, (row + 1) * heads_each):
            for t in range(max(limits[row] - first_key, 0), BLOCK):
                scores[i, t] = _NEVER


@inlined
def _weigh(values: int, stride: int, size: int, places: int, n: int, scores: int, queries: int, sums: int) -> None:
    """sums += scores times values, both addresses; sums is (queries, head size)."""
    for i in range(0, queries, ROWS):
        column, weights = 0, scores + _REAL * BLOCK * i
        while column + WIDE <= size:
            place = sums + _REAL * (size * i + column)
            product_wide(place, size, weights, BLOCK, values + _REAL * column, places, stride, n)
            column += WIDE
        while column < size:
            place = sums + _REAL * (size * i + column)
            product_narrow(place, size, weights, BLOCK, values + _REAL * column, places, stride, n)
            column += NARROW


@compiled(I64)
def attend(address: int) -> int:
    """A thread's share of a `Job`, which lies at this address."""
    job = carray(pointer(address), (_JOB,), np.int64)
    number = fetch_add(address + _THREADS_IN, 1)
    scratch = carray(pointer(job[_SCRATCH_S] + _REAL * job[_SCRATCH_SIZE] * number), (job[_SCRATCH_SIZE],), _F)
    while True:
        item = fetch_add(address + _COUNTER, 1)
        if item >= job[_PIECES]:
            return 0
        _attend_piece(job, carray(pointer(job[_PIECES_S] + _WORD * _PIECE * item), (_PIECE,), np.int64), scratch)


@inlined
def _attend_piece(job: Numbers, piece: Numbers, scratch: Reals) -> None:
    each, size, rows = job[_HEADS_EACH], job[_HEAD_SIZE], piece[_ROWS]
    heads, queries = piece[_LAST_HEAD] - piece[_FIRST_HEAD], _padded(rows * each)
    numbers = carray(pointer(job[_ROWS_S] + _WORD * piece[_FIRST_ROW]), (rows,), np.int64)
    limits = carray(pointer(job[_LIMITS_S] + _WORD * piece[_FIRST_ROW]), (rows,), np.int64)
    query, scratch = _carved(scratch, heads * queries, size)
    sums, scratch = _carved(scratch, heads * queries, size)
    largest, scratch = _carved(scratch, heads, queries)
    totals, scratch = _carved(scratch, heads, queries)
    scores, scratch = _carved(scratch, queries, BLOCK)
    turned, scratch = _carved(scratch, size, BLOCK)
    sums[:] = _ZERO
    totals[:] = _ZERO
    largest[:] = _NEVER
    for head in range(heads):
        own = query[head * queries : (head + 1) * queries]
        _take_queries(job, piece[_FIRST_HEAD] + head, numbers, own)
    for first in range(piece[_START], piece[_END], BLOCK):
        places = job[_SLOTS_S] + _WORD * (piece[_SLOTS] + first - piece[_START])
        for head in range(heads):
            _fetch(job, piece, places, first + BLOCK, head)
            mine = slice(head * queries, (head + 1) * queries)
            _attend_block(
                job, piece[_FIRST_HEAD] + head, places, first, min(BLOCK, piece[_END] - first), limits,
                query[mine], scores, turned, largest[head], totals[head], sums[mine],
            )  # fmt: skip
    for head in range(heads):
        mine = slice(head * queries, (head + 1) * queries)
        _give(job, piece[_PART], piece[_FIRST_HEAD] + head, numbers, sums[mine], largest[head], totals[head])


@inlined
def _carved(scratch: Reals, rows: int, columns: int) -> tuple[Reals, Reals]:
    """A table of its own from the front of the scratch, and what is left."""
    return scratch[: rows * columns].reshape(rows, columns), scratch[rows * columns :]


@inlined
def _take_queries(job: Numbers, kv_head: int, numbers: Numbers, query: Reals) -> None:
    """Those of a key head's query heads, row by row, multiplied with the scale; the last few may be for nobody."""
    each, size, scale = job[_HEADS_EACH], job[_HEAD_SIZE], real_of(np.int32(job[_SCALE_BITS]))
    query[:] = _ZERO
    for row in range(numbers.size):
        first = job[_QUERY_S] + _REAL * (numbers[row] * job[_QUERY_STRIDE] + kv_head * each * size)
        given = carray(pointer(first), (each, size), _F)
        for i in range(each):
            for d in range(size):
                query[row * each + i, d] = given[i, d] * scale


@inlined
def _attend_block(
    job: Numbers, kv_head: int, places: int, first: int, n: int, limits: Numbers,
    query: Reals, scores: Reals, turned: Reals, largest: Reals, totals: Reals, sums: Reals,
) -> None:  # fmt: skip
    """Some queries of one key head on n keys, the first of which is number `first` of its list."""
    size, stride, queries = job[_HEAD_SIZE], job[_KV_HEADS] * job[_HEAD_SIZE], query.shape[0]
    offset = _REAL * kv_head * size
    _turn(job[_KEYS_S] + offset, stride, size, places, n, turned.ctypes.data)
    scores[:] = _ZERO
    for i in range(0, queries, ROWS):
        product_wide(
            scores.ctypes.data + _REAL * BLOCK * i, BLOCK, query.ctypes.data + _REAL * size * i, size,
            turned.ctypes.data, job[_NUMBERS_S], BLOCK, size,
        )  # fmt: skip
    # Limits do not fall from row to row.
    if first + BLOCK > limits[0]:
        _hide(scores, first, limits, job[_HEADS_EACH])
    _softmax(scores, queries, largest, totals, sums)
    _weigh(job[_VALUES_S] + offset, stride, size, places, n, scores.ctypes.data, queries, sums.ctypes.data)


@inlined
def _give(job: Numbers, part: int, kv_head: int, numbers: Numbers, sums: Reals, largest: Reals, totals: Reals) -> None:
    """The results, or where others have more of the same rows, what `merge` needs of them."""
    each, size, heads = job[_HEADS_EACH], job[_HEAD_SIZE], job[_KV_HEADS] * job[_HEADS_EACH]
    for q in range(numbers.size * each):
        row, head = q // each, kv_head * each + q % each
        if part < 0:
            factor = _ONE / totals[q]
            base = job[_OUTPUT_S] + _REAL * (numbers[row] * job[_OUTPUT_STRIDE] + head * size)
        else:
            factor = _ONE
            base = job[_PARTS_S] + _REAL * ((part + row) * heads + head) * (size + 2)
            rest = carray(pointer(base + _REAL * size), (2,), _F)
            rest[0], rest[1] = largest[q], totals[q]
        result = carray(pointer(base), (size,), _F)
        for d in range(size):
            result[d] = sums[q, d] * factor


@compiled(I64)
def merge(address: int) -> int:
    """A thread's share of the rows of a `Job` that were attended in several parts."""
    job = carray(pointer(address), (_JOB,), np.int64)
    while True:
        item = fetch_add(address + _COUNTER, 1)
        if item >= job[_MERGES]:
            return 0
        row, first, count = carray(pointer(job[_MERGES_S] + _WORD * 3 * item), (3,), np.int64)
        parts = carray(pointer(job[_MERGED_PARTS_S] + _WORD * first), (count,), np.int64)
        _merge_row(job, row, parts)


@inlined
def _merge_row(job: Numbers, row: int, parts: Numbers) -> None:
    size, heads = job[_HEAD_SIZE], job[_KV_HEADS] * job[_HEADS_EACH]
    for head in range(heads):
        out = carray(pointer(job[_OUTPUT_S] + _REAL * (row * job[_OUTPUT_STRIDE] + head * size)), (size,), _F)
        largest = _NEVER
        for part in parts:
            sums = carray(pointer(job[_PARTS_S] + _REAL * (part * heads + head) * (size + 2)), (size + 2,), _F)
            largest = max(largest, sums[size])
        total = _ZERO
        out[:] = _ZERO
        for part in parts:
            sums = carray(pointer(job[_PARTS_S] + _REAL * (part * heads + head) * (size + 2)), (size + 2,), _F)
            factor = exp_of_negative(sums[size] - largest)
            total += factor * sums[size + 1]
            for d in range(size):
                out[d] += factor * sums[d]
        for d in range(size):
            out[d] /= total
