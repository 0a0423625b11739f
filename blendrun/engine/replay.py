"""The replay engine: no model, a virtual clock, answers marked as such. For tests and what-if, never for work.

Requests run in `slots` lanes; each takes the time its tokens would take at fixed rates. The clock jumps from one
completion to the next, or follows real time slowed or sped by a factor.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import AsyncIterator
from hashlib import blake2b

import msgspec
import orjson

from blendrun.endpoints.base import Usage
from blendrun.endpoints.registry import ENDPOINTS
from blendrun.engine.base import EngineInfo, Result, WorkItem
from blendrun.engine.failure import failure
from blendrun.errors import ErrorCode, UsageError
from blendrun.events import Listener
from blendrun.text import cut
from blendrun.version import __version__

_CONTEXT_LENGTH = 8192
_CHARACTERS_PER_TOKEN = 4
# Without a stated length answers are made this long at most, unless the request's own bound is lower.
_LONGEST_ANSWER = 256
_LONGEST_NAME = 256
_LEAST, _MOST = 1e-3, 2**31
_TEXT = "[replay] no model was run"


class ReplaySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Set with --engine-arg. Rates: tokens/s a lane. real_time: 0 virtual clock, 1 real time, 10 faster.

    fail_every: every N-th row of the job fails; 0 for none.
    """

    slots: int = 64
    prefill_rate: float = 20_000.0
    decode_rate: float = 50.0
    real_time: float = 0.0
    fail_every: int = 0

    def __post_init__(self) -> None:
        # Written so that what is no number is refused, too.
        if not (
            1 <= self.slots <= _MOST and _LEAST <= self.prefill_rate <= _MOST and _LEAST <= self.decode_rate <= _MOST
        ):
            raise ValueError("slots and rates must be positive, and at most 2^31")
        if not (0 <= self.real_time <= _MOST and 0 <= self.fail_every <= _MOST):
            raise ValueError("real_time and fail_every must be zero or more, and at most 2^31")
        if self.real_time and self.real_time < _LEAST:
            raise ValueError(f"real_time below {_LEAST:g} would never end")


class ReplayEngine:
    """Keeps `blendrun.engine.base.Engine`, in the runner's own process."""

    def __init__(self, settings: ReplaySettings) -> None:
        self.settings = settings
        self._waiting: deque[WorkItem] = deque()
        self._running: list[tuple[float, int, Result]] = []
        self._changed = asyncio.Event()
        self._closed = False
        self._now = 0.0

    @classmethod
    def from_arguments(cls, arguments: dict[str, object]) -> ReplayEngine:
        """Raises UsageError for an unknown or impossible argument."""
        try:
            return cls(msgspec.convert(arguments, ReplaySettings))
        except (msgspec.ValidationError, ValueError) as error:
            known = ", ".join(field.name for field in msgspec.structs.fields(ReplaySettings))
            raise UsageError(f"--engine-arg for the replay engine: {error}; known are {known}") from error

    @property
    def fetching(self) -> int:
        return 0

    async def start(self, listener: Listener) -> EngineInfo:
        return EngineInfo(
            engine="replay",
            platform="cpu",
            context_length=_CONTEXT_LENGTH,
            kv_tokens=_CONTEXT_LENGTH * self.settings.slots,
            max_running=self.settings.slots,
            versions={"replay": __version__},
        )

    async def submit(self, item: WorkItem) -> None:
        self._waiting.append(item)
        self._changed.set()

    async def close_input(self) -> None:
        self._closed = True
        self._changed.set()

    async def results(self) -> AsyncIterator[Result]:
        while True:
            while self._waiting and len(self._running) < self.settings.slots:
                item = self._waiting.popleft()
                result = self._answer(item)
                heapq.heappush(self._running, (self._now + self._seconds(result.usage), item.row, result))
            if self._running and (self._closed or len(self._running) == self.settings.slots):
                finish, _, result = heapq.heappop(self._running)
                if self.settings.real_time > 0:
                    await asyncio.sleep((finish - self._now) / self.settings.real_time)
                self._now = finish
                yield result
            elif self._closed:
                # More may be handed over after that.
                self._closed = False
                return
            else:
                self._changed.clear()
                # A feeder that waits for results to free its window must not wait for a full house here.
                try:
                    await asyncio.wait_for(self._changed.wait(), 0.01)
                except TimeoutError:
                    if self._running:
                        self._now, _, result = heapq.heappop(self._running)
                        yield result

    async def stop(self) -> None:
        self._waiting.clear()
        self._running.clear()
        self._closed = False

    def _seconds(self, usage: Usage) -> float:
        return usage.prompt / self.settings.prefill_rate + usage.output / self.settings.decode_rate

    def _answer(self, item: WorkItem) -> Result:
        endpoint = ENDPOINTS[item.url]
        body = orjson.loads(item.body)
        demand = endpoint.demand(body)
        length = item.known_output_tokens
        if length is None:
            digest = blake2b(item.body, digest_size=4).digest()
            length = 1 + int.from_bytes(digest, "big") % _LONGEST_ANSWER
        bound = demand.max_new_tokens or _CONTEXT_LENGTH
        reason = "stop" if length <= bound else "length"
        length = min(length, bound)
        prompt = 1 + endpoint.prompt_characters(body) // _CHARACTERS_PER_TOKEN
        if self.settings.fail_every and (item.row + 1) % self.settings.fail_every == 0:
            return failure(item.row, 500, ErrorCode.ENGINE_ERROR, "this row fails because fail_every says so")
        if isinstance(body.get("model"), str):
            body["model"] = cut(body["model"], _LONGEST_NAME)
        answer = endpoint.replay_body(body, _TEXT, Usage(prompt, 0, length * demand.choices), reason)
        reasons = endpoint.finish_reasons(answer)
        return Result(item.row, 200, orjson.dumps(answer), endpoint.usage(answer), reasons)
