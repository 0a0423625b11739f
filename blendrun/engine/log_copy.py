"""The log of an engine that outlives a job, in that job's own log file too."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

_EVERY_S = 1.0
_CHUNK_BYTES = 1 << 20


class LogCopy:
    """Appends to a file what another one gets from now on. One is followed in one event loop."""

    def __init__(self, source: Path, target: Path) -> None:
        self._source, self._target = source, target
        self._copied = source.stat().st_size if source.exists() else 0
        self._task = asyncio.ensure_future(self._follow())

    def close(self) -> None:
        """Copy what is missing, and no more from then on."""
        self._task.cancel()
        self._catch_up()

    async def _follow(self) -> None:
        while True:
            self._catch_up()
            await asyncio.sleep(_EVERY_S)

    def _catch_up(self) -> None:
        # A copy that cannot be written must not end what it is a copy of.
        with suppress(OSError), self._source.open("rb") as source:
            source.seek(self._copied)
            while chunk := source.read(_CHUNK_BYTES):
                with self._target.open("ab") as target:
                    target.write(chunk)
                self._copied += len(chunk)
