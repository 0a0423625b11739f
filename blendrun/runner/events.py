"""What a run tells those who watch it. Plain values, made often, kept by nobody."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PhaseStarted:
    """A phase begins: index, model, load, run, write."""

    name: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a phase is. unit: "bytes" or "requests".

    failed, in_flight and the tokens are zero outside of the run phase; tokens are those of this invocation.
    """

    done: int
    total: int
    unit: str
    failed: int = 0
    in_flight: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Note:
    """A sentence for the person: what was decided, or a warning, which is shown even where quiet is asked for."""

    text: str
    warning: bool = False


Event = PhaseStarted | Progress | Note
Watch = Callable[[Event], None]
