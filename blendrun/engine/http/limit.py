"""How much a server may have at once: as many requests as it takes, and so many tokens."""

from __future__ import annotations

import asyncio
import time

# Several refusals within so many seconds speak of one and the same overload.
_ONE_OVERLOAD_S = 1.0


class Limit:
    """Requests and tokens in flight, first come, first served. On one event loop.

    The number of requests is halved when the server says that it is too many, and grows by one each time that as many
    were answered (additive increase, multiplicative decrease), up to `requests`. tokens: None for no limit; a request
    that is larger goes alone.
    """

    def __init__(self, requests: int, tokens: int | None = None) -> None:
        self._most, self._tokens = requests, tokens
        self._room = float(requests)
        self._sent = self._sent_tokens = 0
        self._halved = -_ONE_OVERLOAD_S
        self._changed = asyncio.Condition()

    @property
    def room(self) -> int:
        """Requests that may be in flight now."""
        return int(self._room)

    async def enter(self, tokens: int) -> None:
        """Wait until a request of so many tokens may go, and count it."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._fits(tokens))
            self._sent += 1
            self._sent_tokens += tokens

    def _fits(self, tokens: int) -> bool:
        if self._sent >= self.room:
            return False
        return self._tokens is None or not self._sent or self._sent_tokens + tokens <= self._tokens

    async def leave(self, tokens: int, *, answered: bool) -> None:
        """A request has ended. answered: and the server had room for it."""
        async with self._changed:
            self._sent -= 1
            self._sent_tokens -= tokens
            if answered:
                self._room = min(self._room + 1.0 / self._room, float(self._most))
            self._changed.notify_all()

    def too_many(self) -> None:
        """The server has refused one because it has enough."""
        now = time.monotonic()
        if now - self._halved >= _ONE_OVERLOAD_S:
            self._halved = now
            self._room = max(min(self._room, float(self._sent)) / 2, 1.0)
