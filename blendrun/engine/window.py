"""How much the engine may have at once: requests, and bytes of their bodies, which bound their tokens."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from blendrun.blend.base import LEFT, RIGHT

# Requests of the right side that may wait while its part of the pool is not filled.
_MOST_SHORT = 128


def side_to_feed(waiting: tuple[float, float], depth: int, *, sided: bool, right_short: bool = False) -> int | None:
    """The side of a blend that is to be handed a request now; None where enough wait. LEFT where there are no sides.

    waiting: requests of each side that the engine has and has not admitted. depth: that it should have of each.
    right_short: whether all that was handed over of the right side does not fill its part of the pool: as it comes
    first, the left one would come in for want of it, above all when a run begins.
    """
    if not sided:
        return LEFT if sum(waiting) < depth else None
    if right_short and waiting[RIGHT] < max(depth, _MOST_SHORT):
        return RIGHT
    # Of equal ones the right side, as in `blend.scan.first_side`: the left one takes whatever is left.
    side = LEFT if waiting[LEFT] < waiting[RIGHT] else RIGHT
    return side if waiting[side] < depth else None


# In the runner, the engine process and the scheduler each: some hundred MB when token ids are Python integers.
MOST_BYTES = 16 << 20


class Window:
    """requests: in flight, at most `most`. bytes: of their bodies together, at most; a larger one goes alone."""

    def __init__(self, most: int, most_bytes: int = MOST_BYTES) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._requests = self._bytes = 0
        self._changed = asyncio.Condition()

    @property
    def full(self) -> bool:
        return self._requests >= self._most

    async def enter(self, size: int) -> None:
        """Wait until a body of `size` bytes may go, and count it."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._requests or self._bytes + size <= self._most_bytes)
            self._requests += 1
            self._bytes += size

    async def change(self, seconds: float = 1.0) -> None:
        """Wait until a request has ended, or so long: the last one may have ended just now."""
        async with self._changed:
            # Not `wait_for`, which in Python 3.11 may take no notice of being cancelled.
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._changed.wait()

    async def leave(self, size: int) -> None:
        """A request of `size` bytes has ended."""
        async with self._changed:
            self._requests -= 1
            self._bytes -= size
            self._changed.notify_all()
