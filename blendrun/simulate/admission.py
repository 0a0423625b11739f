"""Which request comes next: from the front of an order, or from both ends of a blend's row."""

from __future__ import annotations

from typing import Any

import numpy as np

from blendrun.blend.base import LEFT, RIGHT
from blendrun.blend.scan import first_side, left_share
from blendrun.simulate.batch import admit, fits
from blendrun.simulate.own import refresh_prefixes, shut_out
from blendrun.simulate.pool import evict, is_coming
from blendrun.simulate.state import TAIL, TAIL_TO_COME, Number, Truth
from blendrun.tree.compiled import inlined


@inlined
def fill(state: Any, nodes: Any, work: Any, agenda: Any, row: Any, back: Any, filling: Any, budget: Number) -> Number:
    """Admit requests until their prefill takes `budget` tokens. Returns how many."""
    new = 0
    if state.shut and state.pending == 0:
        return new
    if anything_waits(state, back):
        refresh_prefixes(state, nodes, work)
    while state.pending - state.kept_back < budget and not state.shut:
        request = _choose(state, nodes, work, agenda, row, back)
        if request < 0:
            break
        admit(state, nodes, work, agenda, request)
        filling.append(np.int64(request))
        new += work[request].parts
    if new > 0:
        # What one that came in later will use stays.
        evict(state, nodes)
    return new


@inlined
def anything_waits(state: Any, back: Any) -> Truth:
    return state.left_at <= state.right_at or len(back) > 0


@inlined
def _choose(state: Any, nodes: Any, work: Any, agenda: Any, row: Any, back: Any) -> Number:
    """The request to admit next, taken from where it waited; -1 where none may be."""
    if len(back) > 0:
        if _is_gated(state, nodes, work, back[-1]):
            return -1
        if fits(state, nodes, work, agenda, back[-1]):
            return back.pop()
        shut_out(state, nodes, work, back[-1])
        return -1
    if state.tail == TAIL_TO_COME and state.rest_size <= state.pool:
        _begin_tail(state, work, row)
    _find_share(state, row)
    keep_left, keep_right = _stays(state, row, LEFT), _stays(state, row, RIGHT)
    first = first_side(keep_left, keep_right, state.holding_right, _part(state, RIGHT))
    # Where neither may, the left side borrows: what it brings is soon gone, so it does not keep the right side out.
    asked_left = False
    for turn in range(3):
        side = (first, 1 - first, LEFT)[turn]
        begun = keep_left if side == LEFT else keep_right
        if (turn == 2 and asked_left) or not (begun or _may_feed(state, side, turn == 2)):
            continue
        asked_left = asked_left or side == LEFT
        request = row[7][state.left_at if side == LEFT else state.right_at]
        if _is_gated(state, nodes, work, request):
            # The engine's gate keeps the order: what stands behind waits too.
            return -1
        if fits(state, nodes, work, agenda, request):
            _step(state, work, row, request, side)
            return request
        if begun or not state.sided or state.tail == TAIL:
            # What is begun is finished first: another's prefix in its place might push out its own.
            shut_out(state, nodes, work, request)
            return -1
    return -1


@inlined
def _lowest_first(keys: Any) -> Any:
    """Places by key, equal keys as they stand: i64. NumPy's own sorts take a tenth of all compiling."""
    count, width = len(keys), 1
    here, there = np.arange(count), np.arange(count)
    while width < count:
        for begin in range(0, count, 2 * width):
            middle, end = min(begin + width, count), min(begin + 2 * width, count)
            left, right = begin, middle
            for place in range(begin, end):
                if left < middle and (right >= end or keys[here[left]] <= keys[here[right]]):
                    there[place] = here[left]
                    left += 1
                else:
                    there[place] = here[right]
                    right += 1
        here, there = there, here
        width *= 2
    return here


@inlined
def _begin_tail(state: Any, work: Any, row: Any) -> None:
    """All that is left fits together with what runs: from now on one side feeds it, longest first (`TAIL`)."""
    place, count = row[7], max(state.right_at + 1 - state.left_at, 0)
    keys = np.empty(count)
    for ahead in range(count):
        keys[ahead] = -work[place[state.left_at + ahead]].reach
    longest_first = _lowest_first(keys)
    rest = place[state.left_at : state.right_at + 1].copy()
    for ahead in range(count):
        place[state.left_at + ahead] = rest[longest_first[ahead]]
    state.tail = TAIL
    state.share = 1.0


@inlined
def _is_gated(state: Any, nodes: Any, work: Any, request: Number) -> Truth:
    return state.gate > 0 and is_coming(nodes, work[request].leaf, state.gate)


@inlined
def _stays(state: Any, row: Any, side: Number) -> Truth:
    """Whether the head of a side is the rest of what it has begun (`blend.scan_row`)."""
    if state.left_at > state.right_at or state.tail == TAIL:
        return False
    return row[5][state.left_at] if side == LEFT else row[6][state.right_at]


@inlined
def _find_share(state: Any, row: Any) -> None:
    """The left side's share of the pool for the units at both ends (`blend.scan`), kept until one of them changes."""
    if state.left_at > state.right_at or state.tail == TAIL:
        return
    unit, density, reads = row[0], row[3], row[4]
    left, right = unit[state.left_at], unit[state.right_at]
    if state.share_left != left or state.share_right != right:
        rho = state.rest_compute / max(state.rest_memory, 1e-30)
        state.share = left_share(density[left], density[right], rho, reads[left], reads[right])
        state.share_left, state.share_right = left, right


@inlined
def _part(state: Any, side: Number) -> float:
    """Tokens of the pool that are a side's."""
    share = state.share if side == LEFT else 1.0 - state.share
    return float(share * state.pool)


@inlined
def _may_feed(state: Any, side: Number, borrow: Truth) -> Truth:
    """Whether a side has its turn: its pace not ahead of time and less in the pool than its part, unless it borrows."""
    if state.left_at > state.right_at:
        return False
    if state.tail == TAIL:
        return side == LEFT
    if state.running == 0:
        return True
    holding, due = state.holding_left, state.due_left
    if side == RIGHT:
        holding, due = state.holding_right, state.due_right
    if state.paced and due > state.decoded:
        return False
    return borrow or holding < _part(state, side)


@inlined
def _step(state: Any, work: Any, row: Any, request: Number, side: Number) -> None:
    """Take the head of a side off the row."""
    work[request].side = side
    state.rest_compute -= row[1][request]
    state.rest_memory -= row[2][request]
    # A side that holds its part on the mean admits a request's tokens times its steps every so many steps.
    steps = float(max(work[request].expected - 1, 0))
    tokens = work[request].length + work[request].choices * steps / 2
    pace = tokens * steps / max(_part(state, side), 1.0)
    if side == LEFT:
        state.left_at += 1
        state.due_left += pace
    else:
        state.right_at -= 1
        state.due_right += pace
