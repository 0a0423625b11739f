"""Lengths: what is expected of each request's output."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from blendrun.lengths.spread import Spread

# Levels at which the normal distribution is tabulated.
_LEVELS = np.linspace(0.0, 1.0, 4097)[1:-1]
_NORMAL = np.array([NormalDist().inv_cdf(level) for level in _LEVELS.tolist()])


# Of the answers of a prompt's like, so many are no longer than what a long answer is taken to be. Of levels from 0.5 to
# 0.97, of the mean and of the mean square this ordered heavy-tailed kinds best (`scripts/bench/tails.py`).
_REACH = 0.97


class LengthSource(IntEnum):
    """Where a length came from, best first. The number is what `Lengths.source` holds."""

    KNOWN = 0
    REFERENCE = 1
    SAMPLES = 2
    HISTORY = 3
    PRIOR = 4


@dataclass(frozen=True, slots=True, eq=False)
class Lengths:
    """Output tokens expected of one choice of each of M prompts, in input order (as in `Prompts`).

    mean: f64 (M,), mean of d, in tokens; 0 <= mean <= bound.
    square: f64 (M,), mean of d^2; >= mean^2. The KV reads of decoding are quadratic in d, so the mean is not enough
        (docs/paper.md#both-moments-of-a-length).
    bound: i32 (M,), most tokens d can be.
    source: u8 (M,), a `LengthSource`.
    spread: how answers are spread about the means; None where only the moments are known.
    """

    mean: NDArray[np.float64]
    square: NDArray[np.float64]
    bound: NDArray[np.int32]
    source: NDArray[np.uint8]
    spread: Spread | None = None

    def __len__(self) -> int:
        return len(self.mean)

    def take(self, numbers: NDArray[np.int64]) -> Lengths:
        """Of some of the prompts. numbers: i64 (n,)."""
        return Lengths(
            self.mean[numbers],
            self.square[numbers],
            self.bound[numbers],
            self.source[numbers],
            None if self.spread is None else self.spread.take(numbers),
        )

    @property
    def certain(self) -> NDArray[np.bool_]:
        """Lengths without variance: bool (M,)."""
        return self.square <= self.mean * self.mean * (1 + 1e-9)

    @property
    def reach(self) -> NDArray[np.float64]:
        """How long an answer may well be, f64 (M,), in tokens: what may reach far has to begin early.

        Of two kinds with one mean, that with the heavier tail reaches further (docs/paper.md#long-tails-begin-early).
        """
        return self.quantile(np.full(len(self), _REACH))

    def quantile(self, level: NDArray[np.float64]) -> NDArray[np.float64]:
        """The length that `level` of the answers (0 to 1) do not exceed, f64 (M,) -> f64 (M,), in tokens.

        Without a spread, of the log-normal distribution with this mean and mean square.
        """
        certain = self.certain
        if self.spread is not None:
            return np.where(certain, self.mean, self.spread.quantile(level))
        ratio = np.divide(self.square, self.mean * self.mean, out=np.ones_like(self.mean), where=~certain)
        spread = np.log(ratio)
        with np.errstate(divide="ignore"):
            drawn = np.exp(np.log(self.mean) - spread / 2 + np.interp(level, _LEVELS, _NORMAL) * np.sqrt(spread))
        return np.where(certain, self.mean, np.minimum(drawn, self.bound))
