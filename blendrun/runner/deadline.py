"""What can still finish: a run that must be gone at a time admits nothing that would be cut off."""

from __future__ import annotations

import time
from collections import deque

import numpy as np

# Requests whose times are looked at: the machine's pace of the last while.
_RECENT = 256
# Below that, times say little.
_FEWEST = 8


class Deadline:
    """end: seconds of `time.monotonic` by which all that was admitted should be answered.

    A request's time is taken to be a wait and a time for each token of its answer, fitted to the last ones that ended.
    """

    def __init__(self, end: float) -> None:
        self.end = end
        self._tokens: deque[int] = deque(maxlen=_RECENT)
        self._seconds: deque[float] = deque(maxlen=_RECENT)
        self._wait, self._pace, self._mean, self._new = 0.0, 0.0, 0.0, 0

    def ended(self, tokens: int, seconds: float) -> None:
        """A request with an answer of that many tokens took so long from hand-over to its end."""
        self._tokens.append(tokens)
        self._seconds.append(seconds)
        self._new += 1

    def fits(self, tokens: int) -> bool:
        """Whether a request may be admitted now. tokens: expected of its answer, 0 where nobody knows."""
        left = self.end - time.monotonic()
        return left > 0 and (len(self._tokens) < _FEWEST or self._estimate(tokens) <= left)

    def _estimate(self, tokens: int) -> float:
        if self._new:
            self._new = 0
            # The slope may be noise where requests wait in a queue; it is at most all of the time over all tokens.
            count, seconds = np.array(self._tokens, dtype=np.float64), np.array(self._seconds)
            spread, most = float(count.var()), float(seconds.mean() / max(count.mean(), 1.0))
            pace = float(((count - count.mean()) * (seconds - seconds.mean())).mean() / spread) if spread else most
            self._pace = min(max(pace, 0.0), most)
            self._mean = float(count.mean())
            self._wait = max(float(seconds.mean() - self._pace * count.mean()), 0.0)
        return self._wait + self._pace * (tokens or self._mean)
