"""Who attends to what in a step: pieces of work for `attention_loop`, made once a step for all layers.

Rows that decode and begin with the same slots (a prefix that the radix cache gave them) read what they share together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blendrun.engine.cpu.attention_loop import BLOCK, MOST_ROWS, Piece
from blendrun.tree.compiled import I32_TABLE_IN, I64, I64_IN, I64_OUT, compiled, inlined

Numbers = NDArray[np.int64]

# Fewer keys than these are not worth a piece of their own for the rows that share them.
_LEAST_SHARED = 32
# Keys of a piece at least: what a piece costs by itself is little beside them.
_LEAST_KEYS = 256
# Pieces a thread, so that none waits long for another.
_PIECES_A_THREAD = 4
# Rows of a prefill that are attended together.
_PREFILL_ROWS = 64

_PIECE = int(Piece.SIZE)


@dataclass(frozen=True, slots=True)
class Plan:
    """pieces: (n, Piece.SIZE). rows, limits: each row of each piece, and how many keys of its list it sees. slots: all
    lists one after another. merges: (rows in several parts, 3) row, first and count of its parts in `parts`. stored:
    how many parts there are. most_rows: of one piece.
    """

    pieces: Numbers
    rows: Numbers
    limits: Numbers
    slots: Numbers
    merges: Numbers
    parts: Numbers
    stored: int
    most_rows: int


def prefill(table: NDArray[np.int32], requests: Numbers, lengths: Numbers, new: Numbers, kv_heads: int) -> Plan:
    """The last `new` tokens of each request, of `lengths` in all. table: (requests, context) slots, by token."""
    pieces, limits, slots = [], [], []
    first = held = 0
    for request, length, count in zip(requests.tolist(), lengths.tolist(), new.tolist(), strict=True):
        for start in range(0, count, _PREFILL_ROWS):
            rows = min(_PREFILL_ROWS, count - start)
            end = length - count + start + rows
            pieces += [(first + start, rows, held, 0, end, head, head + 1, -1) for head in range(kv_heads)]
        limits.append(np.arange(length - count + 1, length + 1))
        slots.append(table[request, :length])
        first += count
        held += length
    # The longest first, so that the threads end together.
    pieces.sort(key=lambda piece: -piece[Piece.ROWS] * piece[Piece.END])
    nothing = np.zeros((0, 3), np.int64)
    return Plan(
        pieces=np.array(pieces, np.int64).reshape(-1, _PIECE),
        rows=np.arange(first),
        limits=np.concatenate(limits),
        slots=np.concatenate(slots).astype(np.int64),
        merges=nothing,
        parts=nothing,
        stored=0,
        most_rows=_PREFILL_ROWS,
    )


def decode(table: NDArray[np.int32], requests: Numbers, lengths: Numbers, kv_heads: int, threads: int) -> Plan:
    """One new token each. table: (requests, context) slots, by token."""
    count, keys = requests.size, int(lengths.sum())
    order, common = np.empty(count, np.int64), np.zeros(count, np.int64)
    _sort(table, requests, lengths, order, common)
    segments = np.empty((2 * count, 4), np.int64).reshape(-1)
    found = _segments(common, lengths, order, segments)
    parted = segments[: 4 * found].reshape(-1, 4)
    work = int((parted[:, 3] - parted[:, 2]).sum())
    chunk = max(_LEAST_KEYS, -(-work // (threads * _PIECES_A_THREAD) // BLOCK) * BLOCK)
    cuts = -(-(parted[:, 3] - parted[:, 2]) // chunk) * -(-(parted[:, 1] - parted[:, 0]) // MOST_ROWS)
    listed = int((cuts * np.minimum(parted[:, 1] - parted[:, 0], MOST_ROWS)).sum())
    pieces, rows = np.empty(int(cuts.sum()) * _PIECE, np.int64), np.empty(listed, np.int64)
    limits, slots = np.empty(listed, np.int64), np.empty(keys, np.int64)
    made = np.zeros(3, np.int64)
    _cut(table, requests, order, segments[: 4 * found], chunk, kv_heads, pieces, rows, limits, slots, made)
    whole = pieces[: made[0] * _PIECE].reshape(-1, _PIECE)
    return _with_merges(whole, rows[: made[1]], limits[: made[1]], slots[: made[2]], count)


def _with_merges(pieces: Numbers, rows: Numbers, limits: Numbers, slots: Numbers, count: int) -> Plan:
    times = np.bincount(rows, minlength=count)
    parted = times[rows] > 1
    # A piece keeps its parts where any of its rows has more.
    kept = np.add.reduceat(parted, pieces[:, Piece.FIRST_ROW]) > 0
    pieces[:, Piece.PART] = np.where(kept, pieces[:, Piece.FIRST_ROW], -1)
    parts = np.flatnonzero(np.repeat(kept, pieces[:, Piece.ROWS]))
    by_row = parts[np.argsort(rows[parts], kind="stable")]
    merged, first, many = np.unique(rows[by_row], return_index=True, return_counts=True)
    return Plan(
        pieces=pieces,
        rows=rows,
        limits=limits,
        slots=slots,
        merges=np.stack((merged, first, many), axis=1),
        parts=by_row,
        stored=rows.size,
        most_rows=int(pieces[:, Piece.ROWS].max()),
    )


@inlined
def _shared(table: NDArray[np.int32], one: int, other: int, most: int) -> int:
    """How many slots two requests have in common from the start, `most` at most."""
    for token in range(most):
        if table[one, token] != table[other, token]:
            return token
    return most


@compiled(I32_TABLE_IN, I64_IN, I64_IN, I64_OUT, I64_OUT)
def _sort(table: NDArray[np.int32], requests: Numbers, lengths: Numbers, order: Numbers, common: Numbers) -> int:
    """order: rows by their slots. common: slots that each has in common with the one before it in `order`."""
    for row in range(requests.size):
        place = row
        while place > 0:
            before = order[place - 1]
            most = min(lengths[row], lengths[before])
            same = _shared(table, requests[row], requests[before], most)
            if same == most or table[requests[before], same] < table[requests[row], same]:
                break
            order[place] = before
            place -= 1
        order[place] = row
    for place in range(1, requests.size):
        one, other = order[place], order[place - 1]
        # A row's own token, its last, is nobody else's.
        most = min(lengths[one], lengths[other]) - 1
        common[place] = _shared(table, requests[one], requests[other], most)
    return 0


@compiled(I64_IN, I64_IN, I64_IN, I64_OUT)
def _segments(common: Numbers, lengths: Numbers, order: Numbers, segments: Numbers) -> int:
    """Ranges of tokens that a range of `order` reads together: (first place, last, first token, last); their number."""
    count, found, waiting = order.size, 0, 1
    stack = np.empty((count + 1, 3), np.int64)
    stack[0] = (0, count, 0)
    while waiting:
        waiting -= 1
        first, last, start = stack[waiting]
        if last - first == 1:
            end = lengths[order[first]]
        else:
            end = common[first + 1]
            for place in range(first + 2, last):
                end = min(end, common[place])
            if end - start < _LEAST_SHARED:
                end = start
        if end > start:
            segments[4 * found : 4 * found + 4] = (first, last, start, end)
            found += 1
        if last - first > 1:
            part = first
            for place in range(first + 1, last + 1):
                if place == last or common[place] - end < _LEAST_SHARED:
                    stack[waiting] = (part, place, end)
                    waiting += 1
                    part = place
    return found


@compiled(
    I32_TABLE_IN, I64_IN, I64_IN, I64_IN, I64, I64, I64_OUT, I64_OUT, I64_OUT, I64_OUT, I64_OUT
)  # fmt: skip
def _cut(
    table: NDArray[np.int32], requests: Numbers, order: Numbers, segments: Numbers, chunk: int, kv_heads: int,
    pieces: Numbers, rows: Numbers, limits: Numbers, slots: Numbers, made: Numbers,
) -> int:  # fmt: skip
    """Segments in pieces of `chunk` keys and MOST_ROWS rows at most. made: pieces, rows and slots written."""
    number, listed, held = 0, 0, 0
    for segment in range(segments.size // 4):
        first, last, start, end = segments[4 * segment : 4 * segment + 4]
        for token in range(start, end):
            slots[held + token - start] = table[requests[order[first]], token]
        for place in range(first, last, MOST_ROWS):
            many = min(MOST_ROWS, last - place)
            for token in range(start, end, chunk):
                to = min(token + chunk, end)
                base = number * _PIECE
                pieces[base : base + _PIECE] = (listed, many, held + token - start, token, to, 0, kv_heads, -1)
                number += 1
                for row in range(many):
                    rows[listed + row] = order[place + row]
                    limits[listed + row] = to
                listed += many
        held += end - start
    made[0], made[1], made[2] = number, listed, held
    return 0
