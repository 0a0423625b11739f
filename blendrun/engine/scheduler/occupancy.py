"""What runs in the engine, said to the runner at each step: a file of numbers in shared memory.

The runner hands over what it takes to keep a few requests waiting, so it has to know how many do. The scheduler writes,
the runner reads; a number is written in one piece, and one that is a step old costs a step.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np

_NUMBERS = 2


class Occupancy:
    """Requests that are admitted and have not ended, of each side of a blend (LEFT where there are no sides).

    A request that wants several answers counts in parts, one an answer.
    """

    def __init__(self, path: Path) -> None:
        """Raises OSError or ValueError where there is no such file, or an empty one."""
        self._numbers = np.memmap(path, dtype="<f8", mode="r+", shape=(_NUMBERS,))

    @classmethod
    def create(cls, path: Path) -> Occupancy:
        """A new file that says that nothing runs. Raises OSError."""
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.truncate(8 * _NUMBERS)
        return cls(path)

    def lose(self) -> None:
        """From now on nobody tells."""
        self._numbers[:] = math.nan

    @property
    def lost(self) -> bool:
        """Whether what is written here is not what runs."""
        return math.isnan(self._numbers[0])

    def tell(self, left: float, right: float) -> None:
        self._numbers[0], self._numbers[1] = left, right

    @property
    def running(self) -> tuple[float, float]:
        """Of each side: LEFT, RIGHT."""
        return float(self._numbers[0]), float(self._numbers[1])
