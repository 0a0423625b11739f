"""When what runs is expected to end, and what it gives back then: a ring of the decode steps to come.

Admission looks ahead at every request and at every step that admits nothing, and thousands may run. So ends are not a
sorted list, in which each newcomer moves those behind it, but one place for each step, its number modulo the ring's
size: what ends at one step is one sum, noted and forgotten at once. Look-ahead passes over 64 steps at a time wherever
the most that was ever found in them leaves room; there it need not look at each.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendrun.simulate.state import BLOCK, END, Number, Truth
from blendrun.tree.compiled import inlined

_STEPS = 64


def empty_agenda(longest: int, pool: int) -> tuple[NDArray[np.void], NDArray[np.void]]:
    """Nothing runs. longest: most output tokens of a choice that admission expects. pool: tokens of it.

    Records END (S,), of each step modulo S, and BLOCK (S / 64,), of each 64 of these.
    """
    # Of the block of steps that is just passing, the ring holds all, and of the last one to come too.
    size = _STEPS
    while size < min(longest, pool) + 3 * _STEPS:
        size *= 2
    return np.zeros(size, dtype=END), np.zeros(size // _STEPS, dtype=BLOCK)


@inlined
def note_end(state: Any, agenda: Any, end: Number, frees: Number, rows: Number) -> Number:
    """Expect a request to end at a step to come; one that is due already may run for ever.

    Admission by a reserve looks at no end, and what ends in more steps than the pool has tokens is never looked at:
    whoever is to run as long does not fit beside it. Returns what `forget_end` is to be told.
    """
    if state.reserve >= 0.0 or end <= state.forgotten or end - state.forgotten > len(agenda[0]) - 2 * _STEPS:
        return -1
    _add(agenda, end, frees, rows)
    return end


@inlined
def forget_end(state: Any, agenda: Any, end: Number, frees: Number, rows: Number) -> None:
    """Take back what was noted, unless that end is past."""
    if end > state.forgotten:
        _add(agenda, end, -frees, -rows)
        # Without it there is so much more at the block's other steps, at most.
        ends, blocks = agenda
        place = end & (len(ends) - 1)
        blocks[place // _STEPS].top += frees + rows * _STEPS


@inlined
def forget_overdue(state: Any, agenda: Any) -> None:
    """Drop expected ends that are past: when those requests really end, nobody knows."""
    if state.reserve < 0.0:
        ends, blocks = agenda
        for step in range(state.forgotten + 1, min(state.decoded, state.forgotten + len(ends)) + 1):
            place = step & (len(ends) - 1)
            if ends[place].rows > 0:
                _add(agenda, step, -ends[place].frees, -ends[place].rows)
            if place % _STEPS == _STEPS - 1:
                blocks[place // _STEPS].top, blocks[place // _STEPS].top_rows = 0, 0
    state.forgotten = state.decoded


@inlined
def _add(agenda: Any, end: Number, frees: Number, rows: Number) -> None:
    ends, blocks = agenda
    place = end & (len(ends) - 1)
    ends[place].frees += frees
    ends[place].rows += rows
    block = place // _STEPS
    blocks[block].frees += frees + rows * (_STEPS - 1 - place % _STEPS)
    blocks[block].rows += rows


@inlined
def fits_at_every_step(agenda: Any, now: Number, held: Number, rows: Number, pool: Number, steps: Number) -> Truth:
    """Whether what runs, growing by a token a row and step, leaves the pool big enough until a newcomer ends.

    `blend.scan.fits_until_its_end` in whole steps. now: decode steps so far. held, rows: of what runs, the newcomer's
    prompt and rows counted. steps: the newcomer's. What ends later than the newcomer was checked when it came.
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
