"""Whether an engine is alive: by what it answers and by what it writes."""

from __future__ import annotations

import time
from pathlib import Path


class Liveness:
    """Seconds since anything was seen of an engine: an answer, a line of its log, a step."""

    def __init__(self, *files: Path) -> None:
        self._files = files
        self._sizes = self._read()
        self._seen = time.monotonic()

    def seen(self) -> None:
        """It has just shown itself."""
        self._seen = time.monotonic()

    def silence(self) -> float:
        """Seconds since the last sign."""
        sizes = self._read()
        if sizes != self._sizes:
            self._sizes = sizes
            self.seen()
        return time.monotonic() - self._seen

    def _read(self) -> list[int]:
        return [_size(path) for path in self._files]


def _size(path: Path) -> int:
    """-1 where nothing can be seen."""
    try:
        return path.stat().st_size
    except OSError:
        return -1
