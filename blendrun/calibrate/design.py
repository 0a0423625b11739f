"""Which batches to measure, so that each constant of the step model shows and a sweep takes minutes.

- one prompt alone, of several lengths: seconds a token, a squared token; with several at once: seconds a request
- decode batches of several sizes and contexts, a short answer taken off a long one: seconds a step, row, KV token
- more short requests than run at once: what a step costs while requests come and go
- a mix of lengths, held out: judges the fit
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from blendrun.calibrate.base import Ask, Probe

_SEED = 20_240_711
# Tokens of a context that SGLang keeps back.
_RESERVED = 8
# Share of the pool that a batch may fill: admission keeps some free, and shared prompts must survive in the rest.
_POOL_SHARE = 0.4


@dataclass(frozen=True, slots=True)
class Room:
    """What the engine can hold. kv_tokens: size of the KV pool; context_length: prompt and answer; both in tokens."""

    kv_tokens: int
    context_length: int
    max_running: int


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """Sizes of a sweep. lengths: of single prompts. several: (prompts, tokens each) handed over at once.

    batches: (rows, context) of decode batches; their prompts come from `few_long` and `many_short` (rows, context).
    short, long: output tokens of the two measurements of a decode batch.
    """

    lengths: tuple[int, ...]
    several: tuple[tuple[int, int], ...]
    few_long: tuple[int, int]
    many_short: tuple[int, int]
    batches: tuple[tuple[int, int], ...]
    short: int
    long: int
    turnover: int
    mix: int
    repeats: int


_CPU = SweepPlan(
    lengths=(64, 128, 256, 512, 1024, 2048),
    several=((8, 64), (4, 256)),
    few_long=(8, 1024),
    many_short=(32, 256),
    batches=(
        *((1, 64), (2, 64), (4, 64), (8, 64), (16, 64), (32, 64)),
        *((16, 256), (32, 256), (8, 512), (1, 1024), (4, 1024), (8, 1024)),
    ),
    short=3,
    long=13,
    turnover=72,
    mix=48,
    repeats=3,
)
# A step takes milliseconds, handing 256 requests over half a second: only long answers show the step.
_GPU = SweepPlan(
    lengths=(128, 512, 1024, 2048, 4096, 8192),
    several=((32, 128), (16, 1024)),
    few_long=(32, 4096),
    many_short=(256, 512),
    batches=(
        *((1, 128), (8, 128), (32, 128), (64, 128), (128, 128), (256, 128)),
        *((128, 512), (256, 512), (16, 2048), (1, 4096), (8, 4096), (32, 4096)),
    ),
    short=96,
    long=224,
    turnover=512,
    mix=256,
    repeats=3,
)
_QUICK_CPU = SweepPlan(
    lengths=(32, 64, 128, 256),
    several=((4, 32),),
    few_long=(4, 256),
    many_short=(8, 64),
    batches=((1, 32), (2, 32), (4, 32), (8, 32), (8, 64), (1, 256), (4, 256)),
    short=2,
    long=6,
    turnover=16,
    mix=8,
    repeats=1,
)
# Some 40 s. A difference of two answers is exact while the shorter one lasts longer than handing all of them over does:
# 32 steps of 8 ms for 256 requests of 1 ms.
_QUICK_GPU = SweepPlan(
    lengths=(512, 2048, 8192),
    several=((32, 128),),
    few_long=(32, 2048),
    many_short=(256, 128),
    batches=((64, 128), (128, 128), (256, 128), (32, 2048)),
    short=32,
    long=96,
    turnover=128,
    mix=64,
    repeats=1,
)
_PLANS = {("cpu", False): _CPU, ("cpu", True): _QUICK_CPU, ("gpu", False): _GPU, ("gpu", True): _QUICK_GPU}


def probes(platform: Literal["cpu", "gpu"], room: Room, *, quick: bool = False) -> tuple[Probe, ...]:
    """The sweep of a platform, made smaller where the engine holds less, without what does not fit it at all.

    quick: less than a minute, each batch once.
    """
    plan = _PLANS[platform, quick]
    return tuple(probe for probe in _all(plan, room) if _fits(probe, room))


def warm_up() -> Probe:
    """What is run first and forgotten: memory is touched, threads are awake."""
    return Probe("warm-up", tuple(Ask(-1 - number, 128, 8) for number in range(4)))


def _all(plan: SweepPlan, room: Room) -> Iterator[Probe]:
    longest = room.context_length - _RESERVED - 1
    for tokens in dict.fromkeys(min(tokens, longest) for tokens in plan.lengths):
        yield Probe(f"prefill 1 x {tokens}", (Ask(0, tokens, 1),), plan.repeats)
    for rows, tokens in plan.several:
        yield Probe(f"prefill {rows} x {tokens}", _batch(rows, tokens, 1), plan.repeats)
    yield from _coming_and_going(plan, room)
    measured: set[tuple[int, int]] = set()
    for base, (most, context) in ((1_000_000, plan.few_long), (2_000_000, plan.many_short)):
        rows = _that_fit(most, context, room)
        # Also what puts the prompts of the decode batches into the cache, so no other texts on a repeat.
        yield Probe(f"prefill {rows} x {context}", _batch(rows, context, 1, base), fresh=False)
        for wanted, tokens in plan.batches:
            batch = min(wanted, rows), tokens
            # A batch of the other texts that these can only do in part is theirs.
            if tokens <= context and wanted <= most and batch not in measured:
                measured.add(batch)
                yield _decode(plan, *batch, base)


def _decode(plan: SweepPlan, rows: int, context: int, base: int) -> Probe:
    asks = _batch(rows, context, plan.long, base)
    return Probe(f"decode {rows} x {context}", asks, max(plan.repeats - 1, 1), short=plan.short, fresh=False)


def _coming_and_going(plan: SweepPlan, room: Room) -> Iterator[Probe]:
    chance = np.random.default_rng(_SEED)
    base = plan.few_long[1] // 16
    outputs = chance.integers(plan.short, plan.long + plan.short, plan.turnover)
    asks = tuple(Ask(number, base, int(output)) for number, output in enumerate(outputs))
    yield Probe(f"turnover {plan.turnover}", asks, max(plan.repeats - 1, 1))
    prompts = chance.integers(base // 2, plan.few_long[1] // 3, plan.mix)
    outputs = chance.integers(plan.short, 3 * plan.long, plan.mix)
    pairs = zip(prompts, outputs, strict=True)
    asks = tuple(Ask(number, int(prompt), int(output)) for number, (prompt, output) in enumerate(pairs))
    yield Probe(f"mix of {plan.mix}", asks, max(plan.repeats - 1, 1), held_out=True)


def _batch(rows: int, prompt: int, output: int, base: int = 0) -> tuple[Ask, ...]:
    return tuple(Ask(base + number, prompt, output) for number in range(rows))


def _that_fit(rows: int, context: int, room: Room) -> int:
    """Rows of this context that a batch may have: two such sets of prompts stay in the pool together."""
    return max(1, min(rows, room.max_running, int(_POOL_SHARE * room.kv_tokens) // context))


def _fits(probe: Probe, room: Room) -> bool:
    longest = max(ask.prompt + ask.output for ask in probe.asks)
    at_once = sorted((ask.prompt + ask.output for ask in probe.asks), reverse=True)[: room.max_running]
    enough = longest <= room.context_length - _RESERVED and sum(at_once) <= 2 * _POOL_SHARE * room.kv_tokens
    return enough and (probe.short is None or len(probe.asks) <= room.max_running)
