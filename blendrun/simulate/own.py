"""SGLang's own admission: what it keeps free for answers to come, when it looks no further, whose prefixes stay.

Of a request that nothing but its bound can end it keeps all that is to come, of others a share that falls while answers
decode; a newcomer is counted in full in the step in which it comes in. Where one found no room, SGLang does not look
again before a row is gone. It builds a step before it has the result of the one before, so it sees all a step late.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from blendrun.simulate.pool import touch
from blendrun.simulate.state import MIXED, Number, Truth
from blendrun.tree.compiled import inlined

# SGLang's settings of these names: the share falls to so much of what it was at first, in so many steps; sending
# requests back sets it anew, as if so many steps more were decoded.
LEAST_SHARE, DECAY_STEPS, RETRACT_STEPS = 0.14, 600, 20
# SGLang's constants: requests at the front of the queue whose prefixes are refreshed, at every so-and-so-manyth look.
REFRESHED, REFRESH_LOOKS = 128, 32


@inlined
def is_own(state: Any) -> Truth:
    """Whether SGLang admits by itself."""
    return state.reserve >= 0.0


@inlined
def note_kept(state: Any, work: Any, ends: Any, filling: Any, waits: Truth) -> None:
    """What is kept free for all that runs when the next step is built, where anything waits."""
    state.kept = 0.0
    if not is_own(state) or not waits:
        return
    for key in ends:
        request = key % len(work)
        answered = max(work[request].output, 1) - (key // len(work) - state.decoded) - state.late
        left = work[request].choices * min(work[request].limit - answered, state.clip)
        state.kept += left if work[request].fixed else left * state.guess
    for place in range(state.filled, len(filling)):
        state.kept += kept_of_newcomer(state, work, filling[place])
    if state.mode == MIXED:
        state.kept += state.rows


@inlined
def kept_of_newcomer(state: Any, work: Any, request: Number) -> float:
    """Kept free for a request besides its prompt in the step in which its prefill ends: SGLang adds a token."""
    return float(work[request].choices * (min(work[request].limit, state.clip) + 1))


@inlined
def own_fits(state: Any, work: Any, request: Number, held: Number) -> Truth:
    """Whether SGLang would let a request in. held: tokens that something runs on, its prompt's included."""
    left = min(max(work[request].limit - work[request].answered, 0), state.clip)
    return held + state.leaving + state.twice + work[request].choices * (left + 1) + state.kept < state.pool


@inlined
def open_again(state: Any, ended: Truth, held: Number) -> None:
    """Look for newcomers again, where a row is gone. held: tokens that something ran on before."""
    if state.opens or state.rows == 0 or (ended and not state.late):
        state.shut = 0
    state.opens = ended and state.late > 0
    state.leaving = held - (state.used - state.evictable) if state.late else 0
    if state.running == 0:
        # There is no step to build before the last results are there.
        state.opens, state.leaving, state.kept = 0, 0, 0.0


@inlined
def shut_out(state: Any, nodes: Any, work: Any, request: Number) -> None:
    """A request found no room: nobody comes in before a row is gone. What it looked for in the cache counts as used."""
    if state.refresh > 0:
        touch(nodes, work[request].leaf)
    if is_own(state) and state.rows > 0:
        state.shut = 1


@inlined
def note_decoded(state: Any, steps: Number) -> None:
    """So many steps only decoded, and nothing was sent back."""
    least = state.reserve * LEAST_SHARE
    state.guess = max(state.guess - steps * (state.reserve - least) / DECAY_STEPS, least)


@inlined
def note_retracted(state: Any, work: Any, ends: Any) -> None:
    """Requests were sent back: SGLang guesses anew by what the others have answered."""
    answered, most = np.int64(0), np.int64(1)
    for key in ends:
        request = key % len(work)
        choices = work[request].choices
        answered += choices * (work[request].output - (key // len(work) - state.decoded) + RETRACT_STEPS)
        most += choices * work[request].limit
    state.guess = min(answered / most, 1.0)
    state.opens = 1


@inlined
def refresh_prefixes(state: Any, nodes: Any, work: Any) -> None:
    """Note a look; at some, the prefixes of what waits first count as just used, those of the very first as last."""
    if state.refresh == 0 or state.left_at > state.right_at:
        return
    if state.looks % state.refresh == 0:
        count = min(state.right_at + 1 - state.left_at, REFRESHED)
        for place in range(state.left_at + count - 1, state.left_at - 1, -1):
            touch(nodes, work[place].leaf)
    state.looks += 1
