"""What the two sides of a tunnel say to each other: the feeder in one process, SGLang's scheduler in another."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from blendrun.engine.base import OverlapMode, Planned, SchedulerSettings


@dataclass(frozen=True, slots=True)
class TunnelSettings:
    """How the scheduler is started.

    pool_tokens: of the KV pool. context_length: tokens, of the longest request at least. max_running: answers that
    decode at once; None for SGLang's own number. chunk: prefill tokens of a step, where the overlap mode has none of
    its own.
    """

    pool_tokens: int
    context_length: int
    max_running: int | None
    chunk: int
    overlap: OverlapMode = "exclusive"
    scheduler: SchedulerSettings = field(default_factory=SchedulerSettings)


@dataclass(frozen=True, slots=True)
class TunnelRequest:
    """One request on its way in.

    number: of the prompt. ids: i64 as bytes, its token ids. output: tokens that its answer really has. bound: most that
    it may have. known: whether its length is a fact of the request, as with `ignore_eos`. key: prompts share a prefix
    only where it is the same. plan: for the hooks; None for SGLang's own scheduling.
    """

    number: int
    ids: bytes
    output: int
    bound: int
    known: bool
    key: str | None = None
    plan: Planned | None = None


@dataclass(frozen=True, slots=True)
class Started:
    """The scheduler is there. max_running: answers that it decodes at once at most. versions: of the runtime."""

    max_running: int
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class Poll:
    """The scheduler is between two steps and takes what there is to take.

    ended: prompts answered since the last poll. What runs, it has told (`SchedulerSettings.occupancy`).
    """

    ended: list[int]


@dataclass(frozen=True, slots=True)
class Failed:
    """The scheduler has raised. message: its traceback."""

    message: str


# Columns of a step as it is logged: tokens computed by prefill, the sum of b^2 - a^2 over its chunks from token a to b,
# rows that decode, KV tokens that they read, requests that begin.
PREFILL, SQUARE, ROWS, CONTEXT, NEW = range(5)


@dataclass(frozen=True, slots=True, eq=False)
class TunnelLog:
    """What the scheduler did.

    steps: f64 (S, 5), a row a step (columns: PREFILL to NEW). hit_tokens: prompt tokens found in the cache by requests
    admitted for the first time. recomputed_tokens: of the prefill, what requests that were sent back cost again.
    retractions: sent back for want of room. cpu_seconds: by part of the scheduler's own work, of its thread; "model" is
    what computing nothing took. notes: sentences on hooks that did not take.
    """

    steps: NDArray[np.float64]
    hit_tokens: int
    recomputed_tokens: int
    retractions: int
    cpu_seconds: dict[str, float]
    notes: tuple[str, ...]
