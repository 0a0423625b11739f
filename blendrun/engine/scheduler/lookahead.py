"""Whether a newcomer fits at every step to come: the rule of `blend.scan.fits_until_its_end`, in plain NumPy.

The scheduler process must not wait for Numba to load. Tests hold the two against each other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def fits_until_its_end(
    ahead: NDArray[np.float64],
    freed: NDArray[np.float64],
    rows: NDArray[np.float64],
    held: float,
    all_rows: float,
    pool: float,
    steps: float,
) -> bool:
    """Whether what runs, growing by a token a row and step, leaves the pool big enough until a newcomer ends.

    ahead, freed, rows: f64 (N,), of what runs, sorted by `ahead`: steps to its end, tokens it gives back then,
        its rows.
    held, all_rows: of all of it, the newcomer's prompt and rows counted. steps: the newcomer's.
    What is overdue (`ahead` <= 0) grows on and is not seen to end.
    """
    first, last = np.searchsorted(ahead, (0.0, steps), side="right")
    if first >= last:
        return held + all_rows * steps <= pool
    ends, given, gone = ahead[first:last], freed[first:last].cumsum(), rows[first:last].cumsum()
    alive = all_rows - gone + rows[first:last]
    at_ends = held + (alive * np.diff(ends, prepend=0.0)).cumsum() - given + freed[first:last]
    if at_ends.max() > pool:
        return False
    at_last = at_ends[-1] - freed[last - 1]
    return bool(at_last + (all_rows - gone[-1]) * (steps - ends[-1]) <= pool)


class Lookahead:
    """Expected ends of what runs, one row each."""

    def __init__(self, ends: Sequence[tuple[float, float]]) -> None:
        """ends: of each row, steps to its end and tokens it gives back then."""
        table = np.array(ends, dtype=np.float64).reshape(-1, 2)
        table = table[table[:, 0].argsort(kind="stable")]
        self._ahead, self._freed = table[:, 0].copy(), table[:, 1].copy()

    def __len__(self) -> int:
        return len(self._ahead)

    def fits(self, room: float, steps: float) -> bool:
        """Whether one more row of `steps` fits. room: tokens that nothing holds once its prompt is in."""
        rows = np.ones(len(self))
        return fits_until_its_end(self._ahead, self._freed, rows, 0.0, len(self) + 1.0, room, steps)

    def add(self, steps: float, freed: float) -> None:
        """Count a row that was admitted."""
        place = int(np.searchsorted(self._ahead, steps, side="right"))
        self._ahead = np.insert(self._ahead, place, steps)
        self._freed = np.insert(self._freed, place, freed)
