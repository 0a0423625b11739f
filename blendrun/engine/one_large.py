"""How many bytes those who read at once may hold together: a little each, and more only one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class OneLarge:
    """small: bytes that each may hold. On one event loop.

    Who holds more waits until no other one does: what N of them hold is at most N * small and one large thing.
    """

    def __init__(self, small: int) -> None:
        self._small = small
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Holder]:
        """One that reads, until what it has read is handed on."""
        holder = Holder(self._small, self._turn)
        try:
            yield holder
        finally:
            holder.release()


class Holder:
    """What one of them holds."""

    def __init__(self, small: int, turn: asyncio.Lock) -> None:
        self._small, self._turn = small, turn
        self._large = False

    async def hold(self, size: int) -> None:
        """Wait until `size` bytes in all may be held."""
        if size > self._small and not self._large:
            await self._turn.acquire()
            self._large = True

    def release(self) -> None:
        if self._large:
            self._large = False
            self._turn.release()
