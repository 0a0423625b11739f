"""Slow clients: one that keeps the server waiting for its words is let go, so that it takes no place for good.

uvicorn has a place for so many connections and no time by which a request has to be there.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

# Seconds for the head of a request, and for each part of its body.
PATIENCE_S = 20.0
_Protocol: Any = AutoHTTPProtocol


class PatientProtocol(_Protocol):  # type: ignore[misc]  # one of two classes, as there are parsers
    """Of one connection. Where nothing was asked on it for a while it is closed."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._look(last=self)

    def _look(self, last: object) -> None:
        """last: what was being answered at the last look."""
        if self.transport.is_closing():
            return
        cycle: Any = self.cycle
        nothing_new = cycle is last
        if nothing_new and (cycle is None or cycle.response_complete):
            self.transport.close()
            return
        self.loop.call_later(PATIENCE_S, self._look, cycle)
