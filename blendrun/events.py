"""What a run tells those who watch it. Plain values, made often, kept by nobody."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PhaseStarted:
    """A phase begins, for example index, tokenise, load, run or write."""

    name: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a phase is. unit: "bytes", "requests", "strings" (being sorted), "simulations" or "lines".

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


@dataclass(frozen=True, slots=True)
class Expected:
    """What the plan says of all that this invocation is to do; None where it says nothing. Seconds and tokens.

    hit_tokens: prompt tokens from the prefix cache.
    """

    seconds: float | None
    prompt_tokens: int | None
    hit_tokens: int | None
    output_tokens: float | None


@dataclass(frozen=True, slots=True)
class EngineStats:
    """What the engine's step log says, every few seconds: totals since the engine came up, and how it is now.

    prefill_seconds: of steps that prefilled, mixed ones too; decode_seconds: of the others. kv_used: tokens of the pool
    of pool_tokens. running: answers being decoded. waiting: requests in the engine's queue.
    """

    steps: int
    prefill_tokens: int
    decode_tokens: int
    prefill_seconds: float
    decode_seconds: float
    kv_used: int
    pool_tokens: int
    running: int
    waiting: int


Event = PhaseStarted | Progress | Note | Expected | EngineStats
Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The listener of a caller who does not ask."""
