"""What the simulated engine expects of its running requests' ends: `blend.agenda` on the engine's own clock."""

from __future__ import annotations

from typing import Any

from blendrun.blend.agenda import add_end, longest_noted, pass_ends, take_end
from blendrun.simulate.state import Number
from blendrun.tree.compiled import inlined


@inlined
def note_end(state: Any, agenda: Any, end: Number, frees: Number, rows: Number) -> Number:
    """Expect a request to end at a step to come; one that is due already may run for ever.

    Admission by a reserve looks at no end, and what ends in more steps than the pool has tokens is never looked at:
    whoever is to run as long does not fit beside it. Returns what `forget_end` is to be told.
    """
    if state.reserve >= 0.0 or end <= state.forgotten or end - state.forgotten > longest_noted(agenda):
        return -1
    add_end(agenda, end, frees, rows)
    return end


@inlined
def forget_end(state: Any, agenda: Any, end: Number, frees: Number, rows: Number) -> None:
    """Take back what was noted, unless that end is past."""
    if end > state.forgotten:
        take_end(agenda, end, frees, rows)


@inlined
def forget_overdue(state: Any, agenda: Any) -> None:
    """Drop expected ends that are past: when those requests really end, nobody knows."""
    if state.reserve < 0.0:
        pass_ends(agenda, state.forgotten, state.decoded)
    state.forgotten = state.decoded
