"""Answer lengths to simulate with, where they are not known."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from blendrun.lengths.base import Lengths

_SEED = 0


def draw_outputs(lengths: Lengths) -> NDArray[np.int64]:
    """One length a prompt: i64 (M,), the same at every call.

    A length without variance (mean^2 = square) is its mean. Every other is drawn from the log-normal distribution with
    that mean and mean square, of which real answers remind (many short ones, few very long ones), and clipped to its
    bound, which lowers the mean of lengths near it; an answer has at least one token where its bound allows.
    """
    mean, square = lengths.mean, lengths.square
    certain = square <= mean * mean * (1 + 1e-9)
    ratio = np.divide(square, mean * mean, out=np.ones_like(mean), where=~certain)
    spread = np.log(ratio)
    normal = np.random.default_rng(_SEED).standard_normal(len(mean))
    with np.errstate(divide="ignore"):
        drawn = np.exp(np.log(mean) - spread / 2 + normal * np.sqrt(spread))
    tokens = np.where(certain, mean, np.clip(drawn, 1.0, np.inf))
    outputs: NDArray[np.int64] = np.minimum(np.rint(tokens).astype(np.int64), lengths.bound)
    return outputs
