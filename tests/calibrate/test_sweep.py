"""The sweep asks an engine for exactly what a probe says, and finds out what it took."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from blendrun.calibrate.base import Ask, Observation, Probe
from blendrun.calibrate.schedule import Policy
from blendrun.calibrate.sweep import Sweep
from blendrun.endpoints.base import Usage
from blendrun.engine.base import EngineInfo, Result, WorkItem
from blendrun.errors import EngineUnavailableError
from blendrun.events import Event, Listener, Note, ignore

POLICY = Policy(chunk=4096, max_running=32)


class RecordingEngine:
    """Answers at once; keeps what it was asked, and a prefix cache of whole prompts.

    Its clock goes on by a millisecond for each token that it makes. stalls: seconds that it stood still before a
    request, by the number of the request.
    """

    fetching = 0

    def __init__(
        self, refuse: bool = False, die_after: int | None = None, stalls: dict[int, float] | None = None
    ) -> None:
        self.now, self._stalls = 0.0, stalls or {}
        self.bodies: list[dict[str, object]] = []
        self._results: asyncio.Queue[Result] = asyncio.Queue()
        self._seen: set[tuple[int, ...]] = set()
        self._refuse, self._die_after = refuse, die_after

    async def start(self, listener: Listener) -> EngineInfo:
        return EngineInfo("recording", "cpu", 8192, 32_768, 32, {})

    async def submit(self, item: WorkItem) -> None:
        body = json.loads(item.body)
        self.now += self._stalls.get(len(self.bodies), 0.0) + body["max_tokens"] / 1e3
        self.bodies.append(body)
        prompt = tuple(body["prompt"])
        cached = len(prompt) if any(known[: len(prompt)] == prompt for known in self._seen) else 0
        self._seen.add(prompt)
        code = "invalid_request" if self._refuse else None
        result = Result(item.row, 200, b"", Usage(len(prompt), cached, 1), error_code=code, error_message="no room")
        await self._results.put(result)

    async def close_input(self) -> None:
        raise AssertionError("a sweep never closes the input")

    async def results(self) -> AsyncIterator[Result]:
        while self._die_after is None or len(self.bodies) <= self._die_after:
            yield await self._results.get()

    async def stop(self) -> None:
        pass


def measure(engine: RecordingEngine, *probes: Probe, listener: Listener = ignore) -> tuple[Observation, ...]:
    async def run() -> tuple[Observation, ...]:
        return await Sweep(engine, 49_152, POLICY, clock=lambda: engine.now).measure(probes, listener)

    return asyncio.run(run())


def test_requests_are_greedy_of_fixed_length_and_inside_the_vocabulary() -> None:
    engine = RecordingEngine()
    measure(engine, Probe("one", (Ask(3, 500, 7),)))
    (body,) = engine.bodies
    assert (body["max_tokens"], body["temperature"], body["ignore_eos"]) == (7, 0, True)
    prompt = body["prompt"]
    assert isinstance(prompt, list)
    assert len(prompt) == 500
    assert 0 < min(prompt) < max(prompt) < 49_152


def test_repeats_share_no_prefix_unless_they_shall() -> None:
    engine = RecordingEngine()
    fresh = Probe("fresh", (Ask(0, 50, 1), Ask(1, 50, 1)), repeats=3)
    same = Probe("same", (Ask(0, 50, 1),), repeats=3, fresh=False)
    measure(engine, fresh, same)
    firsts = [tuple(body["prompt"][:4]) for body in engine.bodies]  # type: ignore[index]
    assert len(set(firsts[:6])) == 6
    assert len(set(firsts[6:])) == 1
    assert firsts[6] not in firsts[:6]


def test_a_shorter_prompt_of_a_text_is_its_beginning() -> None:
    engine = RecordingEngine()
    measure(engine, Probe("long", (Ask(5, 300, 1),), fresh=False), Probe("short", (Ask(5, 77, 1),), fresh=False))
    long, short = (body["prompt"] for body in engine.bodies)
    assert long[:77] == short  # type: ignore[index]


def test_a_difference_keeps_decode_steps_of_the_whole_batch() -> None:
    engine = RecordingEngine()
    asks = tuple(Ask(number, 40, 12) for number in range(4))
    prime = Probe("prime", tuple(Ask(number, 40, 1) for number in range(4)), fresh=False)
    _, found = measure(engine, prime, Probe("decode", asks, short=2, fresh=False))
    assert {body["max_tokens"] for body in engine.bodies[4:]} == {12, 2}
    assert found.round_trips == 0
    extra = found.steps[len(found.minus) :]
    assert len(extra) == 10
    assert all(step.rows == 4 and step.prefill == 0 for step in extra)
    assert sum(step.prefill for step in found.steps) == 4, "all but the last token of each prompt was cached"


def test_a_difference_that_a_stall_ate_is_measured_again() -> None:
    # The short answer, which is asked for second, waited longer than the whole long one took.
    engine = RecordingEngine(stalls={1: 5.0})
    (found,) = measure(engine, Probe("decode", (Ask(0, 40, 12),), short=2, fresh=False))
    assert found.seconds == pytest.approx(0.010)
    assert [body["max_tokens"] for body in engine.bodies] == [12, 2, 12, 2]


def test_a_probe_that_never_gives_a_usable_difference_is_left_out_and_named() -> None:
    engine = RecordingEngine(stalls=dict.fromkeys(range(1, 40, 2), 5.0))
    told: list[Event] = []
    decode = Probe("decode 1 x 40", (Ask(0, 40, 12),), short=2, fresh=False)
    found = measure(engine, decode, Probe("prefill", (Ask(1, 40, 1),)), listener=told.append)
    assert [observation.name for observation in found] == ["prefill"]
    assert [event.text for event in told if isinstance(event, Note)] == [
        "decode 1 x 40 is left out: longer answers took no longer than short ones, 5 times"
    ]


def test_a_refusal_and_an_early_end_are_said() -> None:
    with pytest.raises(EngineUnavailableError, match="refused a measuring request: no room"):
        measure(RecordingEngine(refuse=True), Probe("one", (Ask(0, 5, 1),)))
    with pytest.raises(EngineUnavailableError, match="in the middle of a measurement"):
        measure(RecordingEngine(die_after=0), Probe("one", (Ask(0, 5, 1),)))
