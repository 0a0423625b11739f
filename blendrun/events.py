"""What a run tells those who watch it. Plain values, made often, kept by nobody."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PhaseStarted:
    """A phase begins, for example index, tokenise, load, run or write. most: seconds that it may take; None for any."""

    name: str
    detail: str = ""
    most: float | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a phase is. unit: "bytes", "requests", "strings" (being sorted), "simulations" or "lines".

    failed, in_flight and the tokens are zero outside of the run phase; tokens are those of this invocation.
    copies, kept: of `done`, lines that no engine was asked for: an equal request was, or an answer was kept. cut:
    answers that ended at their token limit.
    """

    done: int
    total: int
    unit: str
    failed: int = 0
    in_flight: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    copies: int = 0
    kept: int = 0
    cut: int = 0


@dataclass(frozen=True, slots=True)
class Note:
    """A sentence for the person: what was decided, or a warning, which is shown even where quiet is asked for."""

    text: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Expected:
    """What the plan says of all that this invocation is to do; None where it says nothing. Seconds and tokens.

    hit_tokens: prompt tokens from the prefix cache. decode_share: part of the seconds that depends on the output
    tokens, the rest on the prompts. engines: side by side.
    """

    seconds: float | None
    prompt_tokens: int | None
    hit_tokens: int | None
    output_tokens: float | None
    decode_share: float = 0.5
    engines: int = 1


@dataclass(frozen=True, slots=True)
class EngineStats:
    """What the engine's step log says, every few seconds: totals since the engine came up, and how it is now.

    prefill_seconds: of steps that prefilled, mixed ones too; decode_seconds: of the others. kv_used: tokens of the pool
    of pool_tokens. running: answers being decoded. waiting: requests in the engine's queue. paced_seconds: from the
    begin of each step to that of the next one; priced_seconds: what the plan's model says of the same steps; both 0
    where it says nothing.
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
    paced_seconds: float = 0.0
    priced_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Work:
    """Tokens behind the engines of this invocation and before them, by what is expected now, every few seconds.

    done_*: of answers, and of what runs, as far as its output is known. left_*: of what runs and waits. Requests that
    failed are in neither. ahead: least and most seconds until all of it is answered; None where the requests are too
    many to be looked at one by one, or no step of an engine says how fast they go. in_flight: the same of what the
    engine has.
    """

    done_prompt: float
    done_output: float
    left_prompt: float
    left_output: float
    ahead: tuple[float, float] | None = None
    in_flight: tuple[float, float] | None = None


Event = PhaseStarted | Progress | Note | Expected | EngineStats | Work
Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The listener of a caller who does not ask."""
