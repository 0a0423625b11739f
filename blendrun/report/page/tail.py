"""The tail of a run: a few answers that go on alone when all others have ended."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blendrun.text import plural

# Answers that make a tail: no more than this share of the requests, and of those that ran at once.
_FEW, _MOST = 0.12, 0.25
_LEAST_SHARE = 0.15
# A tail of more answers has to last so much longer to be the one that is told.
_GAIN = 1.1


@dataclass(frozen=True, slots=True)
class Tail:
    """begins: second of the run from which on no more than `answers` were left. long: whether these are longer than
    twice the median. seconds: it lasted. share: of the run's time.
    """

    answers: int
    long: bool
    begins: float
    seconds: float
    share: float

    @property
    def words(self) -> str:
        """Who ran alone, for a sentence."""
        return f"{plural(self.answers, 'long answer' if self.long else 'request')} ran alone"


def tail_of(begun: NDArray[np.float64], ended: NDArray[np.float64], output: NDArray[np.int64]) -> Tail | None:
    """The tail of requests that were in the batch from `begun` to `ended` (seconds, (N,)); None where there is none.

    output: i64 (N,), tokens of each answer.
    """
    seconds, count = float(ended.max()), len(ended)
    most = min(int(max(count * _FEW, 1)), int(_peak(begun, ended) * _MOST))
    last = np.argsort(-ended, kind="stable")[: most + 1]
    chosen, begins = 0, seconds
    for few in range(1, min(most, count - 1) + 1):
        # All that are left run by then, so none of them is waited for.
        from_ = float(ended[last[few]])
        if begun[last[:few]].max() > from_:
            continue
        if seconds - from_ > _GAIN * (seconds - begins):
            chosen, begins = few, from_
    lasted = seconds - begins
    if not chosen or lasted < _LEAST_SHARE * seconds:
        return None
    long = bool(output[last[:chosen]].min() > 2 * np.median(output))
    return Tail(chosen, long, round(begins, 3), round(lasted, 3), lasted / seconds)


def _peak(begun: NDArray[np.float64], ended: NDArray[np.float64]) -> int:
    """Most requests at once."""
    moments = np.concatenate((ended, begun))
    change = np.concatenate((np.full(len(ended), -1), np.full(len(begun), 1)))
    return int(np.cumsum(change[np.argsort(moments, kind="stable")]).max(initial=0))
