"""Measures probes on a running engine, through the same path that the requests of a job take."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import AsyncIterator, Callable, Sequence

import numpy as np
import orjson

from blendrun.calibrate.base import Ask, Load, Observation, Probe
from blendrun.calibrate.schedule import Policy, schedule
from blendrun.engine.base import Engine, Result, WorkItem
from blendrun.errors import EngineUnavailableError
from blendrun.events import Listener, Note, PhaseStarted, ignore

_URL = "/v1/completions"
# Texts of one repeat and of one probe must not be those of another.
_TEXTS_APART = 10_000
# A long answer that takes hardly more than a short one was measured beside something else: it is measured again, so
# often at most beyond the probe's own repeats.
_LEAST_SHARE = 0.05
_MORE = 4


class Sweep:
    """One engine that has started, and the texts it has been given.

    vocabulary: token ids of the model. Ids are drawn from its middle, away from the special tokens at its ends.
    clock: seconds since any moment.
    """

    def __init__(
        self, engine: Engine, vocabulary: int, policy: Policy, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._engine, self._vocabulary, self._policy, self._clock = engine, vocabulary, policy, clock
        self._results: AsyncIterator[Result] = aiter(engine.results())
        self._texts = 0

    async def measure(self, probes: Sequence[Probe], listener: Listener = ignore) -> tuple[Observation, ...]:
        """Medians over each probe's repeats, without the probes that gave no usable time, which the listener is told.

        Raises EngineUnavailableError when the engine dies or refuses.
        """
        found = []
        for place, probe in enumerate(probes, start=1):
            listener(PhaseStarted("measure", f"{place} of {len(probes)}: {probe.name}"))
            observation = await self._observe(probe)
            if observation is None:
                text = f"{probe.name} is left out: longer answers took no longer than short ones, {1 + _MORE} times"
                listener(Note(text, warning=True))
            else:
                found.append(observation)
        return tuple(found)

    async def _observe(self, probe: Probe) -> Observation | None:
        seconds: list[float] = []
        loads: list[Load] = []
        tries = 0
        while len(seconds) < probe.repeats and tries < probe.repeats + _MORE:
            tries += 1
            asks = self._fresh(probe.asks) if probe.fresh else probe.asks
            taken, loads = await self._time(asks)
            if probe.short is not None:
                whole, taken = taken, taken - (await self._time(_cut(asks, probe.short)))[0]
                if taken < _LEAST_SHARE * whole:
                    continue
            seconds.append(taken)
        if not seconds:
            return None
        # Both halves of a difference find the same prompts in the cache.
        minus = () if probe.short is None else tuple(dataclasses.replace(load, output=probe.short) for load in loads)
        return Observation(
            name=probe.name,
            seconds=statistics.median(seconds),
            steps=schedule(loads, self._policy),
            minus=schedule(minus, self._policy),
            round_trips=int(probe.short is None),
            held_out=probe.held_out,
        )

    def _fresh(self, asks: Sequence[Ask]) -> tuple[Ask, ...]:
        self._texts += _TEXTS_APART
        # Negative, where no probe's own numbers are.
        return tuple(dataclasses.replace(ask, text=-self._texts - ask.text) for ask in asks)

    async def _time(self, asks: Sequence[Ask]) -> tuple[float, list[Load]]:
        """Seconds until all are answered, and what each found in the cache."""
        items = [WorkItem(row, _URL, self._body(ask)) for row, ask in enumerate(asks)]
        cached = [0] * len(asks)
        begun = self._clock()
        for item in items:
            await self._engine.submit(item)
        for _ in items:
            result = await self._next()
            cached[result.row] = result.usage.cached
        seconds = self._clock() - begun
        # The engine computes at least the last token of a prompt.
        pairs = zip(asks, cached, strict=True)
        return seconds, [Load(ask.prompt, min(hit, ask.prompt - 1), ask.output) for ask, hit in pairs]

    async def _next(self) -> Result:
        try:
            result = await anext(self._results)
        except StopAsyncIteration:
            raise EngineUnavailableError(
                "the engine ended in the middle of a measurement; run the command again"
            ) from None
        if result.error_code is not None:
            raise EngineUnavailableError(f"the engine refused a measuring request: {result.error_message}")
        return result

    def _body(self, ask: Ask) -> bytes:
        low, high = self._vocabulary // 8, self._vocabulary - self._vocabulary // 8
        sign = int(ask.text < 0)
        words = np.random.default_rng((sign, abs(ask.text))).integers(low, high, ask.prompt)
        body = {
            "model": "calibration",
            "prompt": words.tolist(),
            "max_tokens": ask.output,
            "temperature": 0,
            "ignore_eos": True,
        }
        return orjson.dumps(body)


def _cut(asks: Sequence[Ask], output: int) -> tuple[Ask, ...]:
    return tuple(dataclasses.replace(ask, output=output) for ask in asks)
