"""What was seen of real answers: this run's samples, and what earlier runs of the same kinds of request left behind."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 32
"""Octaves of the coarse histogram: lengths 0, 1, 2..3, 4..7, ... The last one takes all that is longer."""


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Answers of this run, finished or still running. A prompt that wants several choices may come once for each.

    prompt: i64 (S,), number of the prompt (0..M-1).
    tokens: f64 (S,), output tokens so far of this choice; all of them where it has finished.
    finished: bool (S,), False where the answer is still being decoded: it is at least this long (right-censored).
    """

    prompt: NDArray[np.int64]
    tokens: NDArray[np.float64]
    finished: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.prompt)


@dataclass(frozen=True, slots=True, eq=False)
class Recalled:
    """Answers of earlier runs by kind of request (`Prompts.cluster`), each kind as a histogram with moments.

    cluster: u64 (R,), ascending, each once; only kinds that history knows.
    count, total, square: f64 (R, BINS), answers in each octave, the sum of their tokens and of tokens squared. Old
        answers count less than one.
    """

    cluster: NDArray[np.uint64]
    count: NDArray[np.float64]
    total: NDArray[np.float64]
    square: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.cluster)


def octave(tokens: NDArray[np.float64]) -> NDArray[np.int64]:
    """Bin of each length: 0 for less than one token, else 1 + floor(log2). tokens, result: (S,)."""
    _, exponent = np.frexp(tokens)
    bins: NDArray[np.int64] = np.clip(np.where(tokens < 1, 0, exponent), 0, BINS - 1).astype(np.int64)
    return bins
