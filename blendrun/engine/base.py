"""What the runner hands to an engine and gets back: the nouns and the interface every engine keeps."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Literal, Protocol

import msgspec

Platform = Literal["cpu", "gpu"]


class WorkItem(msgspec.Struct, frozen=True, tag="work"):
    """One request on its way to the engine.

    row: place in the Job, the id both sides use. url: key of the endpoint registry.
    body: the request's JSON as read from the line, UTF-8.
    known_output_tokens: the answer's length where the input states one; only the replay engine may look.
    """

    row: int
    url: str
    body: bytes
    known_output_tokens: int | None = None


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one request. cached: prompt tokens served from the prefix cache; output: over all choices."""

    prompt: int = 0
    cached: int = 0
    output: int = 0


class Result(msgspec.Struct, frozen=True, tag="result"):
    """One request's end: an answer (`error_code` None) or an error; `body` is the endpoint's JSON either way.

    body is empty where the failure has no HTTP-like form. finish_reasons: one a choice ("stop", "length", ...).
    """

    row: int
    status_code: int
    body: bytes
    usage: Usage = Usage()
    finish_reasons: tuple[str, ...] = ()
    error_code: str | None = None
    error_message: str = ""


class EngineInfo(msgspec.Struct, frozen=True, tag="ready"):
    """What a started engine says of itself.

    context_length, kv_tokens (size of the KV pool): tokens. max_running: requests decoded at once.
    notes: sentences a person should read (a hook that did not take, say).
    """

    engine: str
    platform: str
    context_length: int
    kv_tokens: int
    max_running: int
    versions: dict[str, str]
    notes: tuple[str, ...] = ()


class EngineSettings(msgspec.Struct, frozen=True):
    """Everything an engine process is started with.

    model_path: folder (or GGUF file where the platform loads one). server_args: SGLang's own arguments, which win
    over blendrun's defaults. gate: whether a request waits for a prefix that is being computed (`engine.gate`).
    threads: CPU threads for the arithmetic (CPU platform only).
    """

    model_path: str
    platform: Platform
    threads: int
    trust_remote_code: bool = False
    gate: bool = True
    server_args: dict[str, Any] = {}


OnPhase = Callable[[str], None]


class Engine(Protocol):
    """Takes work items in order, gives results as they come. One start, one stop.

    `results` ends after `close_input` once everything submitted has come back, and raises EngineUnavailableError when
    the engine dies; what had no result by then was not answered.
    """

    async def start(self, on_phase: OnPhase) -> EngineInfo:
        """Bring the engine up. Raises EngineUnavailableError with the reason."""
        ...

    async def submit(self, item: WorkItem) -> None:
        """Hand over one request; returns when it is on its way, not when it is done."""
        ...

    async def close_input(self) -> None:
        """No more work will come."""
        ...

    def results(self) -> AsyncIterator[Result]:
        """Results in order of completion."""
        ...

    async def stop(self) -> None:
        """End the engine and every process it started. Idempotent; never raises for a dead engine."""
        ...
