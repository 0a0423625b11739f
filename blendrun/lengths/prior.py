"""What to expect of an answer of which nothing is known but the most tokens it may have."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# d = min(G, bound), G geometric with mean 16 in six answers of ten and with mean 800 in the others: labels and spans
# beside prose. Chosen to err alike up and down over the published answers of squality (bound 1,024; true mean 304,
# prior 241), xquad-translate (4,096; 592, 327), instruct-mix (4,096; 151, 327), xquad-qa (256; 10, 97), mmlu (1; 1, 1)
# and the unbounded traces of Azure 2023 (154, 330), Mooncake (343, 330) and a reasoning model (1,265, 330).
_SHARE = np.array([0.6, 0.4])
_MEAN = np.array([16.0, 800.0])


# Lengths at which the unbounded prior's distribution is tabulated, ten an octave and more.
_PLACES = np.unique(np.rint(np.geomspace(1.0, 40_000.0, 240)))


def prior_quantile(level: NDArray[np.float64], bound: NDArray[np.int32]) -> NDArray[np.float64]:
    """The length that `level` (0 to 1) of the answers do not exceed, given only the bound: (M,), i32 (M,) -> (M,)."""
    reached = 1.0 - (1.0 - 1.0 / _MEAN) ** _PLACES[:, None] @ _SHARE
    # A whole number of tokens holds all levels up to its own; in between, half a token off is nothing.
    tokens = np.interp(level, np.concatenate(([0.0], reached)), np.concatenate(([0.5], _PLACES + 0.5)))
    within: NDArray[np.float64] = np.minimum(tokens, np.maximum(bound, 0))
    return within


def prior_moments(bound: NDArray[np.int32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean of d and of d^2, in tokens, given only the bound: i32 (M,) -> f64 (M,), f64 (M,).

    A weak prior: people set `max_tokens` with room to spare, so it is off by a factor of two as a rule and of ten for
    one-line answers. What it gets right: an answer of at most a few tokens has nearly that many, and an open bound
    (what the context leaves) promises a few hundred tokens, not a hundred thousand.
    """
    values, inverse = np.unique(np.maximum(bound, 0), return_inverse=True)
    most = values[:, None].astype(np.float64)
    stay = 1.0 - 1.0 / _MEAN
    gone = stay**most
    # Sums of q^(k-1) and of (2k-1) q^(k-1) over k = 1..bound, q the chance to go on: E[d] and E[d^2] of min(G, bound).
    first = (1.0 - gone) * _MEAN
    second = (1.0 + stay - gone * (2.0 * most + 1.0 - (2.0 * most - 1.0) * stay)) * _MEAN**2
    mean = np.minimum(first @ _SHARE, values)
    square = np.clip(second @ _SHARE, mean**2, mean * values)
    return mean[inverse], square[inverse]
