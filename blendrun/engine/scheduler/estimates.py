"""Expected output tokens that the runner corrects while requests are in the engine: a file of numbers in shared memory.

One 32-bit number for each place in the plan, 0 where nothing was corrected. The runner writes, the scheduler reads; a
number is written in one piece, and an old one is no worse than the plan was.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class Estimates:
    """Numbers by place in the plan (`Planned.index`)."""

    def __init__(self, path: Path) -> None:
        """Raises OSError or ValueError where there is no such file, or an empty one."""
        # A plain view: each look into a memmap makes another one, which costs more than the look.
        self._tokens = np.asarray(np.memmap(path, dtype="<i4", mode="r+"))

    @classmethod
    def create(cls, path: Path, count: int) -> Estimates:
        """A new file of `count` (1 or more) zeros. Raises OSError."""
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.truncate(4 * count)
        return cls(path)

    def correct(self, index: int, tokens: int) -> None:
        """From now on this many are expected."""
        self._tokens[index] = tokens

    def corrected(self, index: int) -> int:
        """Expected tokens; 0 where the plan's own number stands."""
        return int(self._tokens[index]) if 0 <= index < len(self._tokens) else 0

    def corrected_at(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """The same of many: i64 (N,)."""
        inside = (indices >= 0) & (indices < len(self._tokens))
        return np.where(inside, self._tokens[np.where(inside, indices, 0)], 0).astype(np.int64)
