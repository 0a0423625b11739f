"""The dual scan: two ends of the unit row feed one KV pool so that its mix stays at the job's own density.

Paper: Algorithm 3 (docs/paper.md#the-dual-scan). At any time the left unit L (dense in compute) and the right unit R
(dense in memory) hold the shares of the pool that make their mix cost compute and memory in the proportion of what is
left of the job (docs/paper.md#the-density-of-what-is-left):

    M_L + M_R = M        M_L k_L (rho_L - rho) = M_R k_R (rho - rho_R)

k = KV tokens read a step over KV tokens held; it is 1 in the paper, and more where decoding requests share a prefix,
which is held once and read by each (docs/paper.md#prefixes-held-once-read-by-many). Every other bracket gives the whole
pool to one side (docs/paper.md#ends-that-do-not-enclose-the-target). A side finishes siblings it has begun, whatever
its share, where what is left of them is less than their prefix (`ScanRow`).

The order comes from playing this out in expected time, a step at a time of decoding: a side that has its turn
(`first_side`) admits next if at no time to come the pool would overflow by what is then running; else time moves on to
the next end. The simulator and the feeder of a running engine go by the same rule on clocks of their own.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blendrun.blend.agenda import BLOCK, END, add_end, empty_agenda, fits_until_its_end, next_end, pass_ends
from blendrun.blend.base import LEFT, RIGHT
from blendrun.blend.scan_row import ScanRow
from blendrun.tree.compiled import BOOL_IN, F64_IN, I64, I64_IN, compiled, inlined

# Steps.
_FOR_EVER = 1e15


@dataclass(frozen=True, slots=True, eq=False)
class Scan:
    """The order of admission: places in the row i64 (M,), sides u8 (M,), left shares f32 (M,); `kv_peak` in tokens."""

    place: NDArray[np.int64]
    side: NDArray[np.uint8]
    left_share: NDArray[np.float32]
    kv_peak: float


def dual_scan(row: ScanRow, pool_tokens: float) -> Scan:
    """Read `row` from both ends into a pool of `pool_tokens` (> 0). A request larger than the pool runs alone."""
    held = row.held
    # Whole tokens and steps. An answer that fills the pool ends there.
    pool = max(int(pool_tokens), 1)
    steps = np.minimum(np.rint(held.steps), pool).astype(np.int64)
    place, side, share, peak = _scan(
        row.unit,
        row.own_left.astype(np.int64),
        row.own_right.astype(np.int64),
        held.rows.astype(np.int64),
        steps,
        held.compute,
        held.memory,
        row.density,
        row.reads,
        row.keep_left,
        row.keep_right,
        pool,
        *empty_agenda(int(steps.max(initial=1))),
    )
    return Scan(place, side, share, float(peak))


def feed_tail_longest_first(scan: Scan, row: ScanRow, pool_tokens: float) -> Scan:
    """Feed the last pool-full longest first: nothing comes behind it to fill the machine while one long answer ends.

    All of it is resident together anyway, so neither the mix nor the sharing suffers (docs/paper.md#the-tail).
    """
    sizes = row.size[scan.place]
    from_end = np.cumsum(sizes[::-1])
    count = int(np.searchsorted(from_end, pool_tokens, side="right"))
    begin = len(scan.place) - count
    tail = begin + np.argsort(-row.held.reach[scan.place[begin:]], kind="stable")
    order = np.concatenate((np.arange(begin), tail))
    return Scan(scan.place[order], scan.side[order], scan.left_share[order], scan.kv_peak)


@inlined
def left_share(rho_left: float, rho_right: float, rho: float, reads_left: float, reads_right: float) -> float:
    """Share of the pool for the left side, 0 to 1."""
    if rho_left <= rho_right:
        # Nothing to mix. One side reads on, so that its unit stays in one piece.
        return 1.0
    if rho >= rho_left:
        return 1.0
    if rho <= rho_right:
        return 0.0
    pull_left = reads_left * (rho_left - rho)
    pull_right = reads_right * (rho - rho_right)
    return pull_right / (pull_left + pull_right)


@inlined
def first_side(keep_left: bool, keep_right: bool, holding_right: float, part_right: float) -> int:
    """The side that feeds next, whoever's clock it is: expected time, the simulator's or a running engine's.

    Siblings that a side has begun come first, whatever its share. Else the right side feeds until it holds its part: it
    stays long and takes few tokens of a step, while the left one may want them all for ever, being so short in the pool
    that it never has its part.
    """
    if keep_right:
        return RIGHT
    if keep_left:
        return LEFT
    return RIGHT if holding_right < part_right else LEFT


@compiled(
    *(I64_IN, I64_IN, I64_IN, I64_IN, I64_IN, F64_IN, F64_IN, F64_IN, F64_IN, BOOL_IN, BOOL_IN, I64),
    *(END, BLOCK),
)
def _scan(
    unit: NDArray[np.int64],
    own_left: NDArray[np.int64],
    own_right: NDArray[np.int64],
    rows: NDArray[np.int64],
    steps: NDArray[np.int64],
    compute: NDArray[np.float64],
    memory: NDArray[np.float64],
    density: NDArray[np.float64],
    reads: NDArray[np.float64],
    keep_left: NDArray[np.bool_],
    keep_right: NDArray[np.bool_],
    pool: int,
    ends: NDArray[np.void],
    blocks: NDArray[np.void],
) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.float32], int]:
    count = len(unit)
    place = np.empty(count, dtype=np.int64)
    sides = np.empty(count, dtype=np.uint8)
    shares = np.empty(count, dtype=np.float32)
    agenda = (ends, blocks)
    # A side's holding, which its share is of, counts means over a request's stay: (end, side, tokens).
    stays = [(0, 0, 0.0)]
    stays.clear()
    holding = np.zeros(2)
    compute_left, memory_left = compute.sum(), memory.sum()
    now, held, all_rows, peak, share = 0, 0, 0, 0, 1.0
    left, right, left_unit, right_unit = 0, count - 1, -1, -1
    for fed in range(count):
        if unit[left] != left_unit or unit[right] != right_unit:
            left_unit, right_unit = unit[left], unit[right]
            rho = compute_left / max(memory_left, 1e-30)
            share = left_share(density[left_unit], density[right_unit], rho, reads[left_unit], reads[right_unit])
        side = -1
        stays_any = keep_left[left] or keep_right[right]
        while side < 0:
            first_choice = first_side(keep_left[left], keep_right[right], holding[RIGHT], pool * (1.0 - share))
            for choice in (first_choice, 1 - first_choice):
                part = pool * (share if choice == LEFT else 1.0 - share)
                chosen = left if choice == LEFT else right
                own = own_left[chosen] if choice == LEFT else own_right[chosen]
                idle = all_rows == 0
                if (holding[choice] < part or idle or stays_any) and (
                    idle or fits_until_its_end(agenda, now, held + own, all_rows + rows[chosen], pool, steps[chosen])
                ):
                    side = choice
                if side >= 0 or stays_any:
                    break
            if side < 0:
                soon = next_end(agenda, now)
                if len(stays) > 0:
                    soon = min(soon, stays[0][0])
                held += all_rows * (soon - now)
                frees, ended_rows = pass_ends(agenda, now, soon)
                held -= frees
                all_rows -= ended_rows
                now = soon
            while len(stays) > 0 and stays[0][0] <= now:
                _, ended, tokens = heapq.heappop(stays)
                holding[ended] -= tokens
        chosen = left if side == LEFT else right
        own = own_left[chosen] if side == LEFT else own_right[chosen]
        growth = rows[chosen] * steps[chosen]
        add_end(agenda, now + steps[chosen], own + growth, rows[chosen])
        held += own
        all_rows += rows[chosen]
        peak = max(peak, held)
        # One request may be more than its side's share: it counts for so much longer, which keeps the side's mean.
        mean = own + growth / 2
        part = pool * (share if side == LEFT else 1.0 - share)
        stretch = max(mean / part, 1.0) if part > 0.0 and left_unit != right_unit else 1.0
        heapq.heappush(stays, (now + int(np.ceil(min(steps[chosen] * stretch, _FOR_EVER))), side, mean))
        holding[side] += mean
        compute_left -= compute[chosen]
        memory_left -= memory[chosen]
        place[fed], sides[fed], shares[fed] = chosen, side, share
        if side == LEFT:
            left += 1
        else:
            right -= 1
    return place, sides, shares, peak
