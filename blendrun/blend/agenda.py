"""When what runs is expected to end, and what it gives back then: a ring of the decode steps to come.

Whoever admits looks ahead at every request, and thousands may run. So ends are not a sorted list, in which each
newcomer moves those behind it, but one place for each step, its number modulo the ring's size: what ends at one step is
one sum, noted and forgotten at once. Look-ahead passes over 64 steps at a time wherever the most that was ever found in
them leaves room; there it need not look at each.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendrun.tree.compiled import inlined

_STEPS = 64
# What ends at a step: tokens it gives back, rows. Of a block of steps: tokens by which the pool is emptier at its last
# one, rows; top: most tokens there can be more than before it, where `top_rows` then run.
END = np.dtype([("frees", "i8"), ("rows", "i8")])
BLOCK = np.dtype([("frees", "i8"), ("rows", "i8"), ("top", "i8"), ("top_rows", "i8")])


def empty_agenda(longest: int) -> tuple[NDArray[np.void], NDArray[np.void]]:
    """Nothing runs. longest: most steps from now at which anything is noted to end.

    Records END (S,), of each step modulo S, and BLOCK (S / 64,), of each 64 of these.
    """
    # Of the block of steps that is just passing, the ring holds all, and of the last one to come too.
    size = _STEPS
    while size < longest + 3 * _STEPS:
        size *= 2
    return np.zeros(size, dtype=END), np.zeros(size // _STEPS, dtype=BLOCK)


@inlined
def longest_noted(agenda: Any) -> int:
    """Steps from now up to which ends can be noted."""
    return len(agenda[0]) - 2 * _STEPS


@inlined
def add_end(agenda: Any, end: int, frees: int, rows: int) -> None:
    ends, blocks = agenda
    place = end & (len(ends) - 1)
    ends[place].frees += frees
    ends[place].rows += rows
    block = place // _STEPS
    blocks[block].frees += frees + rows * (_STEPS - 1 - place % _STEPS)
    blocks[block].rows += rows


@inlined
def take_end(agenda: Any, end: int, frees: int, rows: int) -> None:
    """Take back what `add_end` was told."""
    add_end(agenda, end, -frees, -rows)
    # Without it there is so much more at the block's other steps, at most.
    ends, blocks = agenda
    blocks[(end & (len(ends) - 1)) // _STEPS].top += frees + rows * _STEPS


@inlined
def pass_ends(agenda: Any, before: int, now: int) -> tuple[int, int]:
    """Clear the steps behind `before` up to `now`; returns the tokens given back there, and the rows that ended."""
    ends, blocks = agenda
    frees, rows = 0, 0
    for step in range(before + 1, min(now, before + len(ends)) + 1):
        place = step & (len(ends) - 1)
        own_frees, own_rows = ends[place].frees, ends[place].rows
        if own_rows > 0:
            frees += own_frees
            rows += own_rows
            add_end(agenda, step, -own_frees, -own_rows)
        if place % _STEPS == _STEPS - 1:
            blocks[place // _STEPS].top, blocks[place // _STEPS].top_rows = 0, 0
    return frees, rows


@inlined
def next_end(agenda: Any, now: int) -> int:
    """The first step to come at which anything ends; there must be one."""
    ends, blocks = agenda
    step = now + 1
    while True:
        place = step & (len(ends) - 1)
        if place % _STEPS == 0 and blocks[place // _STEPS].rows == 0:
            step += _STEPS
        elif ends[place].rows == 0:
            step += 1
        else:
            return step


@inlined
def fits_until_its_end(agenda: Any, now: int, held: int, rows: int, pool: int, steps: int) -> bool:
    """Whether what runs, growing by a token a row and step, leaves the pool big enough until a newcomer ends.

    now: steps so far. held, rows: of all that runs, the newcomer's prompt and rows counted. steps: the newcomer's.
    What is overdue is not seen to end: it runs longer than expected, and nobody knows for how long. What ends later
    than the newcomer was checked when it came.
    """
    if held + rows * steps <= pool:
        return True
    ends, blocks = agenda
    step, last = now + 1, now + steps
    while step <= last:
        place = step & (len(ends) - 1)
        whole, block = place % _STEPS == 0, place // _STEPS
        if whole:
            top = blocks[block].top + max(rows - blocks[block].top_rows, 0) * _STEPS
            if held + top <= pool:
                held += rows * _STEPS - blocks[block].frees
                rows -= blocks[block].rows
                step += _STEPS
                continue
        first_held, first_rows, highest = held, rows, held
        upto = min(place + last - step, place | (_STEPS - 1))
        for at in range(place, upto + 1):
            held += rows
            if held > pool:
                return False
            highest = max(highest, held)
            held -= ends[at].frees
            rows -= ends[at].rows
        if whole and upto - place == _STEPS - 1:
            blocks[block].top, blocks[block].top_rows = highest - first_held, first_rows
        step += upto + 1 - place
    return held <= pool
