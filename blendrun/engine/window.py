"""How much the engine may have at once: requests, and bytes of their bodies, which bound their tokens."""

from __future__ import annotations

import asyncio
from contextlib import suppress

# In the runner, the engine process and the scheduler each: some hundred MB when token ids are Python integers.
MOST_BYTES = 16 << 20


class Window:
    """requests: most in flight. bytes: most of their bodies together; a larger one goes alone."""

    def __init__(self, requests: int, most_bytes: int = MOST_BYTES) -> None:
        self._most, self._most_bytes = requests, most_bytes
        self._requests = self._bytes = 0
        self._changed = asyncio.Condition()

    async def slot(self) -> None:
        """Wait until one more request may be chosen."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._requests < self._most)

    async def enter(self, size: int) -> None:
        """Wait until a body of `size` bytes may go, and count it."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._requests or self._bytes + size <= self._most_bytes)
            self._requests += 1
            self._bytes += size

    async def change(self) -> None:
        """Wait until a request has ended, or a second: the last one may have ended just now."""
        async with self._changed:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), 1.0)

    async def leave(self, size: int) -> None:
        """A request of `size` bytes has ended."""
        async with self._changed:
            self._requests -= 1
            self._bytes -= size
            self._changed.notify_all()
