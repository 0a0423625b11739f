"""Slow clients: one that keeps the server waiting is let go, so that it takes no place for good.

uvicorn has a place for so many connections and no time by which a request has to be there, or an answer taken.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeVar

from uvicorn.protocols.http.auto import AutoHTTPProtocol

# Seconds for the head of a request; that a body may keep the server waiting; that an answer may.
HEAD_S = BODY_S = 20.0
ANSWER_S = 300.0
# Bytes of a body or an answer that bring back a second of these.
LEAST_RATE = 10_000
_Protocol: Any = AutoHTTPProtocol
_T = TypeVar("_T")
_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[Any, _Receive, _Send], Awaitable[None]]


class Patience:
    """Seconds that are left to wait for a client. What it sends or takes brings some back, never more than at first.

    So it may pause for as long as that, and is not to be slower than the least rate, however long the whole takes.
    """

    def __init__(self, seconds: float) -> None:
        self._most = self.left = seconds

    def spend(self, seconds: float) -> None:
        self.left -= seconds

    def moved(self, count: float) -> None:
        """So many bytes have come, or gone."""
        self.left = min(self.left + count / LEAST_RATE, self._most)

    async def wait(self, for_what: Awaitable[_T]) -> _T:
        """Raises TimeoutError where no patience is left."""
        begun = time.monotonic()
        try:
            return await asyncio.wait_for(for_what, max(self.left, 0.0))
        finally:
            self.spend(time.monotonic() - begun)


class PatientProtocol(_Protocol):  # type: ignore[misc]  # one of two classes, as there are parsers
    """Of one connection. It is closed where nothing is asked on it for a while, or its client is too slow."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._reading, self._gone = Patience(ANSWER_S), False
        asked: _App = self.app

        async def app(scope: Any, receive: _Receive, send: _Send) -> None:
            self._reading = Patience(ANSWER_S)
            await self._answer(asked, scope, receive, send)

        self.app: _App = app
        self._look(last=self, unread=math.inf)

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = True
        super().connection_lost(exc)

    async def _answer(self, app: _App, scope: Any, receive: _Receive, send: _Send) -> None:
        """As `app` does, with patience for the rest of the body and for the client to take the answer."""
        sending, whole = Patience(BODY_S), False

        async def received() -> _Message:
            nonlocal whole
            if whole:
                # Who asks now wants to know when the client is gone.
                return await receive()
            try:
                message = await sending.wait(receive())
            except TimeoutError:
                return {"type": "http.disconnect"}
            sending.moved(len(message.get("body", b"")))
            whole = not message.get("more_body", False)
            return message

        async def sent(message: _Message) -> None:
            try:
                await self._reading.wait(send(message))
            except TimeoutError:
                self.transport.abort()
            self._reading.moved(len(message.get("body", b"")))

        await app(scope, received, sent)

    def _look(self, last: object, unread: float) -> None:
        """last: what was being answered at the last look; unread: bytes of the answer that were to go out then."""
        if self._gone:
            return
        cycle: Any = self.cycle
        size, done = self.transport.get_write_buffer_size(), cycle is None or cycle.response_complete
        if done and cycle is last:
            if not size:
                self.transport.close()
            else:
                self._reading.spend(HEAD_S)
                self._reading.moved(max(unread - size, 0))
                if self._reading.left <= 0:
                    self.transport.abort()
        self.loop.call_later(HEAD_S, self._look, cycle, size if done else math.inf)
