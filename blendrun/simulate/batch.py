"""A request's life in the engine: admitted, prefilled in chunks, decoded, sent back for want of room, ended."""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np

from blendrun.blend.agenda import fits_until_its_end
from blendrun.blend.base import LEFT
from blendrun.simulate.agenda import forget_end, note_end
from blendrun.simulate.own import is_own, kept_of_newcomer, note_retracted, own_fits
from blendrun.simulate.pool import (
    absent_tokens,
    evict,
    lock,
    publish,
    share_reads,
    unheld_tokens,
    unlock,
    usable_tokens,
)
from blendrun.simulate.state import Number, Truth
from blendrun.tree.compiled import inlined


@inlined
def steps_expected(work: Any, request: Number) -> Number:
    """Decode steps that admission believes in. The first token, and the first after a retraction, is the prefill's."""
    return max(work[request].expected - work[request].answered - 1, 0)


@inlined
def steps_held(state: Any, work: Any, request: Number) -> Number:
    """Decode steps from now until a newcomer ends, if its prefill takes one step, in which the rest decodes on."""
    decoding = state.rows > 0 and state.apart == 0
    return steps_expected(work, request) + (1 if decoding else 0)


@inlined
def hit_tokens(nodes: Any, work: Any, request: Number) -> Number:
    # The engine computes at least the last token of a prompt.
    return max(min(usable_tokens(nodes, work[request].leaf), work[request].length - 1), 0)


@inlined
def fits(state: Any, nodes: Any, work: Any, agenda: Any, request: Number) -> Truth:
    """Whether a request fits beside what runs. Alone it always does."""
    if state.running == 0:
        return True
    choices = work[request].choices
    if state.all_rows + choices > state.max_running:
        return False
    held = state.used - state.evictable + unheld_tokens(nodes, work[request].leaf)
    held += choices * work[request].answered
    if is_own(state):
        return own_fits(state, work, request, held)
    steps = steps_held(state, work, request)
    return fits_until_its_end(agenda, state.decoded, held, state.all_rows + choices, state.pool, steps)


@inlined
def admit(state: Any, nodes: Any, work: Any, agenda: Any, request: Number) -> None:
    choices, answered = work[request].choices, work[request].answered
    hit, own = hit_tokens(nodes, work, request), unheld_tokens(nodes, work[request].leaf) + choices * answered
    if is_own(state):
        state.kept += kept_of_newcomer(state, work, request)
        # What another computes at the same time is held twice until the tree has it.
        work[request].twice = max(work[request].length - hit - absent_tokens(nodes, work[request].leaf), 0)
        state.twice += work[request].twice
    if answered == 0:
        state.hits += hit
    else:
        state.recomputed += work[request].length - hit + choices * answered
    state.used += choices * answered
    lock(state, nodes, work[request].leaf)
    state.running += 1
    state.all_rows += choices
    work[request].rest = work[request].length - hit + choices * answered
    work[request].pause = _pause(state, work, request, hit)
    state.kept_back += work[request].pause
    state.pending += work[request].rest
    # A shared prefix comes back with the last request that holds it; here, with the first.
    steps = steps_expected(work, request)
    work[request].own = own
    work[request].frees = own + choices * steps
    leaves_at = state.decoded + steps_held(state, work, request)
    work[request].leaves_at = note_end(state, agenda, leaves_at, work[request].frees, choices)
    _hold(state, work, request, 1.0)


@inlined
def _pause(state: Any, work: Any, request: Number, hit: Number) -> Number:
    """Prefill tokens after which the other parts of a request wait for the first: the gate keeps them back."""
    waits = state.gate > 0 and work[request].answered == 0 and work[request].common - hit >= state.gate
    return work[request].length - work[request].first if waits else np.int64(0)


@inlined
def begin_round(state: Any, work: Any, filling: Any) -> None:
    """Let parts be computed whose first one is there by now."""
    state.round += 1
    if state.kept_back > 0:
        state.kept_back = 0
        for place in range(state.filled, len(filling)):
            request = filling[place]
            waits = work[request].resumes > state.round
            state.kept_back += work[request].rest if waits else work[request].pause


@inlined
def _hold(state: Any, work: Any, request: Number, sign: float) -> None:
    """Count a request's mean tokens to its side, or (sign -1) no longer."""
    tokens = sign * (work[request].own + work[request].frees) / 2
    if work[request].side == LEFT:
        state.holding_left += tokens
    else:
        state.holding_right += tokens


@inlined
def computed_tokens(work: Any, request: Number) -> Number:
    """Tokens of a request that are in the pool: its prompt and the answers it was sent back with, less what is left."""
    return work[request].length + work[request].choices * work[request].answered - work[request].rest


@inlined
def prefill(state: Any, nodes: Any, work: Any, filling: Any, budget: Number) -> tuple[Number, float, Number]:
    """Give the step's tokens to the requests in prefill, first come first; those that are done stand before the others.

    Returns the tokens, the sum of b^2 - a^2 over the chunks from token a to b, and how many requests are done.
    """
    taken, square, done = np.int64(0), 0.0, np.int64(0)
    place = state.filled
    while taken < budget and place < len(filling):
        request = filling[place]
        place += 1
        if work[request].resumes > state.round:
            continue
        pause = work[request].pause
        tokens = min(work[request].rest - pause, budget - taken)
        begin = float(computed_tokens(work, request))
        square += (begin + tokens) ** 2 - begin**2
        work[request].rest -= tokens
        taken += tokens
        if pause > 0 and work[request].rest == pause:
            work[request].pause = 0
            work[request].resumes = state.round + (2 if state.late else 1)
        if work[request].rest > 0:
            publish(nodes, work[request].leaf, computed_tokens(work, request))
        else:
            if place > state.filled + done + 1:
                filling.insert(state.filled + done, filling.pop(place - 1))
            done += 1
    state.pending -= taken
    state.prefilled += taken
    return taken, square, done


@inlined
def begin_decode(state: Any, nodes: Any, work: Any, agenda: Any, ends: Any, request: Number) -> None:
    """A prefill ended with this step: its next token is there."""
    choices, answered = work[request].choices, work[request].answered
    state.rows += choices
    share_reads(state, nodes, work[request].leaf, choices)
    state.context += choices * (work[request].length + answered)
    leaves_at = state.decoded + steps_expected(work, request)
    if leaves_at != work[request].leaves_at:
        forget_end(state, agenda, work[request].leaves_at, work[request].frees, choices)
        work[request].leaves_at = note_end(state, agenda, leaves_at, work[request].frees, choices)
    work[request].ends_at = state.decoded + max(work[request].output - answered - 1, 0)
    heapq.heappush(ends, work[request].ends_at * len(work) + np.int64(request))


@inlined
def decode(state: Any, nodes: Any, steps: Number) -> None:
    """Every row answers `steps` more tokens."""
    grown = state.rows * steps
    state.decoded += steps
    state.emitted += grown
    state.used += grown
    state.context += grown
    evict(state, nodes)


@inlined
def end_requests(state: Any, nodes: Any, work: Any, agenda: Any, ends: Any, finished: Any) -> None:
    """End every request that has its last token."""
    while len(ends) > 0 and ends[0] // len(work) <= state.decoded:
        request = heapq.heappop(ends) % len(work)
        work[request].answered = work[request].output
        cached = _leave(state, nodes, work, agenda, request)
        if not state.next_use:
            # The engine keeps an answer behind its prompt until eviction takes it. Its next use is known: there is
            # none.
            nodes[work[request].leaf].kept = cached
            state.used += cached
        unlock(state, nodes, work[request].leaf, 0)
        evict(state, nodes)
        finished[request] = state.now
        state.rest_size -= work[request].size
        state.done += 1


@inlined
def _leave(state: Any, nodes: Any, work: Any, agenda: Any, request: Number) -> Number:
    """Take a request out of the batch, and its answers out of the pool; returns the tokens of these."""
    choices = work[request].choices
    cached = choices * max(work[request].answered - 1, 0)
    state.used -= cached
    state.rows -= choices
    state.all_rows -= choices
    share_reads(state, nodes, work[request].leaf, -choices)
    state.context -= choices * work[request].length + cached
    state.running -= 1
    work[request].ends_at = -1
    forget_end(state, agenda, work[request].leaves_at, work[request].frees, choices)
    _hold(state, work, request, -1.0)
    return cached


@inlined
def retract(state: Any, nodes: Any, work: Any, agenda: Any, ends: Any, back: Any) -> None:
    """Send requests back until the next decode step fits, as the engine does.

    First those with the fewest answered tokens, of these the longest prompt, of these the latest in order.
    """
    retracted = state.retracted
    while state.used - state.evictable + state.rows > state.pool and state.running > 1 and state.rows > 0:
        victim, fewest = np.int64(-1), np.int64(0)
        for key in ends:
            request, end = key % len(work), key // len(work)
            answered = work[request].output - (end - state.decoded)
            longest = work[victim].length if victim >= 0 else 0
            further = (work[request].length, request) > (longest, victim)
            if victim < 0 or answered < fewest or (answered == fewest and further):
                victim, fewest = request, answered
        work[victim].answered = fewest
        ends.remove(work[victim].ends_at * len(work) + victim)
        heapq.heapify(ends)
        _leave(state, nodes, work, agenda, victim)
        unlock(state, nodes, work[victim].leaf, 1)
        state.retracted += 1
        back.append(np.int64(victim))
    if state.retracted > retracted:
        note_retracted(state, work, ends)
