"""Whether a newcomer fits at every step to come: the rule of `blend.agenda.fits_until_its_end`, in plain NumPy.

The scheduler process must not wait for Numba to load. Tests hold the two against each other.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class _Peaks(NamedTuple):
    """Tokens that are taken from now on, a newcomer's growth counted and its prompt not, by place in the order of ends.

    at: i64 (N,), at each end, before it gives anything back. most: i64 (N,), the largest up to there.
    """

    at: NDArray[np.int64]
    most: NDArray[np.int64]


class Lookahead:
    """Expected ends of what runs, one row each."""

    def __init__(self, ahead: NDArray[np.int64], freed: NDArray[np.int64]) -> None:
        """ahead, freed: i64 (N,), of each row: steps to its end, and tokens that it gives back then.

        What is overdue (`ahead` <= 0) grows on and is not seen to end.
        """
        order = ahead.argsort(kind="stable")
        ahead, freed = ahead[order], freed[order]
        self._overdue = int(ahead.searchsorted(0, side="right"))
        self._ahead, self._freed = ahead[self._overdue :], freed[self._overdue :]
        self._peaks: _Peaks | None = None

    def __len__(self) -> int:
        return self._overdue + len(self._ahead)

    def fits(self, room: int, steps: int) -> bool:
        """Whether one more row of `steps` fits. room: tokens that nothing holds once its prompt is in."""
        rows = len(self) + 1
        last = int(self._ahead.searchsorted(steps, side="right"))
        if last == 0:
            return rows * steps <= room
        if self._peaks is None:
            self._peaks = self._find_peaks()
        if self._peaks.most[last - 1] > room:
            return False
        at_last = self._peaks.at[last - 1] - self._freed[last - 1]
        return bool(at_last + (rows - last) * (steps - self._ahead[last - 1]) <= room)

    def add(self, steps: int, freed: int) -> None:
        """Count a row that was admitted."""
        self._peaks = None
        if steps <= 0:
            self._overdue += 1
            return
        place = int(self._ahead.searchsorted(steps, side="right"))
        self._ahead = np.insert(self._ahead, place, steps)
        self._freed = np.insert(self._freed, place, freed)

    def _find_peaks(self) -> _Peaks:
        alive = np.arange(len(self) + 1, self._overdue + 1, -1)
        at = (alive * np.diff(self._ahead, prepend=0)).cumsum()
        at[1:] -= self._freed[:-1].cumsum()
        return _Peaks(at, np.maximum.accumulate(at))
