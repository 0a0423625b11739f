"""Requests that decode nothing, through SGLang's own classes. Runs in the engine process only.

SGLang's class for them makes one request to the engine, or many, or makes them of parts of one (scores), somewhere in
its own code. All of them pass here on their way: what would end the scheduler is refused, each gets its plan, and what
it took is counted.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import MethodType
from typing import Any

from blendrun.engine.base import Planned
from blendrun.engine.scheduler.planned import attach_plan
from blendrun.errors import LineError


@dataclass(slots=True)
class Reading:
    """One line, or a part of one, that is being read. adapter: that it runs on.

    refusal: why its prompt is not taken; SGLang's code keeps the message of an error, not the error. prompt, cached:
    tokens that it took, and of these what the cache held.
    """

    plan: Planned | None
    adapter: str | None
    refusal: LineError | None = None
    prompt: int = 0
    cached: int = 0

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """What this task asks of the engine in the meantime is this line's."""
        before = _current.set(self)
        try:
            yield
        finally:
            _current.reset(before)


_current: ContextVar[Reading] = ContextVar("reading")


# Methods of SGLang's that make requests of their own.
_MAKERS = ("score_request", "score_prompts")


class ReadManager:
    """SGLang's tokenizer manager, for its classes whose requests decode nothing."""

    def __init__(self, manager: Any, preparing: ThreadPoolExecutor, check_prompt: Callable[[Any], None]) -> None:
        """preparing: where prompts are tokenised. check_prompt: tokenises one request's; raises LineError."""
        self._manager, self._preparing, self._check_prompt = manager, preparing, check_prompt

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._manager, name)
        return MethodType(found.__func__, self) if name in _MAKERS else found

    async def generate_request(self, asked: Any, raw_request: Any = None) -> AsyncIterator[Any]:
        """SGLang's, for one line's request or requests."""
        reading = _current.get()
        try:
            # Its end token is put behind the text where SGLang makes the ids.
            if not getattr(self._manager.model_config, "is_embedding_gemma", False):
                loop = asyncio.get_running_loop()
                await loop.run_in_executor(self._preparing, self._check_prompt, asked)
        except LineError as refusal:
            reading.refusal = refusal
            raise ValueError(refusal.message) from refusal
        asked.lora_path = reading.adapter
        if asked.sampling_params is None:
            asked.sampling_params = {}
        if reading.plan is not None:
            attach_plan(asked, reading.plan)
        async for told in self._manager.generate_request(asked, raw_request):
            for each in told if isinstance(told, list) else [told]:
                facts = each.get("meta_info") or {}
                reading.prompt += facts.get("prompt_tokens") or 0
                reading.cached += facts.get("cached_tokens") or 0
            yield told


def as_object(response: Any) -> Any:
    """SGLang's response; the list that its reranker gives, as an object."""
    if not isinstance(response, list):
        return response
    return {
        "id": uuid.uuid4().hex,
        "created": int(time.time()),
        "results": [{"index": each.index, "score": each.score} for each in response],
    }


def told_usage(reading: Reading) -> dict[str, Any]:
    """`usage` of a line that was read: some of SGLang's classes tell none, and none of them what was cached."""
    return {
        "prompt_tokens": reading.prompt,
        "completion_tokens": 0,
        "total_tokens": reading.prompt,
        "prompt_tokens_details": {"cached_tokens": reading.cached},
    }
