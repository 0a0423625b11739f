"""Engines in whose middle something happens."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable

from blendrun.engine.base import Result
from blendrun.engine.replay import ReplayEngine, ReplaySettings
from blendrun.errors import EngineUnavailableError


class Interrupted(ReplayEngine):
    """The replay engine until `at` results are out; then `event` happens."""

    def __init__(self, at: int, event: Callable[[], None]) -> None:
        super().__init__(ReplaySettings(slots=1))
        self._at, self._event = at, event

    async def results(self) -> AsyncIterator[Result]:
        number = 0
        async for result in super().results():
            if number == self._at:
                self._event()
                # Signals reach the runner through its loop.
                await asyncio.sleep(0.2)
            number += 1
            yield result


def die() -> None:
    raise EngineUnavailableError("the engine died")


def signalled(number: int, *, dies: bool = False) -> Callable[[], None]:
    def event() -> None:
        os.kill(os.getpid(), number)

    def fatal() -> None:
        os.kill(os.getpid(), number)
        raise EngineUnavailableError("the engine died of the same signal")

    return fatal if dies else event
