"""The nouns of the simulator: how long a step takes, how the engine schedules, what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from blendrun.blend.budget import Budget, ConstantBudget
from blendrun.names import Overlap

EXACT = -1.0
# learned: from earlier runs of this model on this machine. measured: fitted by a calibration with this model. model:
# from rates by the cost model. prior: guessed.
StepOrigin = Literal["learned", "measured", "model", "prior"]


class Eviction(IntEnum):
    """lru: what was not used for longest. next_use: first what no waiting request can use, then as lru."""

    LRU = 0
    NEXT_USE = 1


@dataclass(frozen=True, slots=True)
class StepTime:
    """Seconds of one engine step, a sum of terms whose constants a calibration fits.

    products = max(prefill_token * p + decode_token * rows, reading the weights), p and rows the tokens of the step.
    attention of prefill = prefill_square * sum (b^2 - a^2) over the chunks, each from token a to token b.
    attention of decode = kv_token * KV tokens read + row * rows; where the same pass prefills (mixed steps), the reads
    take `mixed` times as long again, because rows that decode then go through the kernel made for prefill.
    Each step costs `step` more, each newly admitted request `request`.

    weights: seconds to read all of them. experts, expert_miss: of a mixture of experts, a step of t tokens reads
    `experts * expert_miss ** t` seconds less.
    origin: what kind of number each constant is, by its name (see `steptime`).
    """

    prefill_token: float
    decode_token: float
    prefill_square: float
    kv_token: float
    weights: float = 0.0
    experts: float = 0.0
    expert_miss: float = 0.0
    row: float = 0.0
    step: float = 0.0
    request: float = 0.0
    mixed: float = 0.0
    origin: Mapping[str, StepOrigin] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Drafts:
    """Tokens guessed ahead and checked in one step, in steps that prefill nothing and decode few rows.

    count: a row and step. acceptance: chance that one is right where those before it were (0 to 1). rows: most in a
    step with drafts. Guessing takes no time, as looking up n-grams takes none on the device.
    """

    count: int
    acceptance: float
    rows: int = 1 << 30

    def __post_init__(self) -> None:
        if self.count < 1 or not 0 <= self.acceptance <= 1:
            raise ValueError(f"{self} says nothing about drafts")

    @property
    def tokens(self) -> float:
        """Of an answer in a step, on the mean: the drafts that are right up to the first wrong one, and one more."""
        return float(sum(self.acceptance**place for place in range(self.count + 1)))


@dataclass(frozen=True, slots=True)
class HostCache:
    """KV cache in the host's memory: what is evicted and used again goes there, and comes back before it is used.

    tokens: it holds. token_seconds: to bring one back; nothing hides it. Bringing them there costs nothing.
    """

    tokens: int
    token_seconds: float


_BUDGET = ConstantBudget(2048)


@dataclass(frozen=True, slots=True)
class SimulatedEngine:
    """How the simulated engine schedules.

    pool_tokens: KV tokens it can hold. max_running: answers decoding at once.
    overlap: what runs beside what.
    budget: tokens of a step, and whether it may mix; in exclusive mode, prefill tokens of a step that decodes nothing.
    gate: a request waits, and all behind it, while a prefill in flight computes a prefix that it could reuse, of
        `gate_tokens` or more; else it computes it again.
    reserve: share of what running requests may still answer that admission keeps free (0 to 1) at first, `clip` tokens
        of each at most, as SGLang does (`own`); EXACT admits what fits at every step to come, by the expected ends of
        all that runs.
    refresh: at every so-and-so-manyth look for newcomers, prefixes of those that wait first count as just used; 0
        where they do not.
    late: the scheduler builds a step before it has the result of the one before, as SGLang's overlapped one does: a
        prefix can be used from the second step behind the one that computes it. On pdmux it never does.
    shared_reads: a step that decodes reads a segment of the tree of so many tokens or more once for all rows behind it,
        unless it prefills in the same pass; None where each row reads it, as in all of SGLang's own backends.
    drafts: speculation, None for none; an answer then grows by the mean of tokens a step. host: cache in host memory.
    paced: a side of a blend admits at the even pace that keeps its part of the pool filled, so that requests of one
        length do not begin, grow and end together.
    """

    pool_tokens: int
    overlap: Overlap = Overlap.MIXED
    budget: Budget = _BUDGET
    max_running: int = 1 << 30
    gate: bool = True
    gate_tokens: int = 1
    reserve: float = EXACT
    clip: int = 1 << 30
    refresh: int = 0
    eviction: Eviction = Eviction.NEXT_USE
    late: bool = True
    shared_reads: int | None = None
    drafts: Drafts | None = None
    host: HostCache | None = None
    paced: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """The run in T equal numbers of steps (the last bucket may be shorter). All f64 (T,).

    steps: in the bucket. seconds: it took. compute, memory: seconds of arithmetic and of KV reads in it, each as if
    alone. prefill, decode: tokens computed. hits: prompt tokens found in the cache. held: KV tokens in use at the end.
    rows: decoding rows at the end.
    """

    steps: NDArray[np.float64]
    seconds: NDArray[np.float64]
    compute: NDArray[np.float64]
    memory: NDArray[np.float64]
    prefill: NDArray[np.float64]
    decode: NDArray[np.float64]
    hits: NDArray[np.float64]
    held: NDArray[np.float64]
    rows: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a simulated run came to.

    seconds: makespan. compute_seconds, memory_seconds: of all arithmetic and of all KV reads, each as if alone.
    hit_tokens: prompt tokens found in the cache when a request was first admitted, in the host's too. loaded_tokens:
    that came from there, in all.
    prefill_tokens, decode_tokens: computed. An answer's first token comes with its prefill, so decoding computes one
    less. recomputed_tokens: of the prefill, what requests that were sent back cost again. steps: engine steps, as if
    none had drafts. retractions: requests sent back for want of room. finished: f64 (M,), in feed order, the second
    each request ended; empty where that was not to be kept.
    """

    seconds: float
    compute_seconds: float
    memory_seconds: float
    hit_tokens: int
    prefill_tokens: int
    recomputed_tokens: int
    decode_tokens: int
    steps: int
    retractions: int
    timeline: Timeline
    finished: NDArray[np.float64] = field(repr=False)
    loaded_tokens: int = 0

    @property
    def bound_seconds(self) -> float:
        """The least time for the work this run did: arithmetic and KV reads perfectly overlapped."""
        return max(self.compute_seconds, self.memory_seconds)
