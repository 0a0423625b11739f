"""Answer lengths to simulate with, where they are not known."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from blendrun.lengths.base import Lengths

_SEED = 0


def draw_outputs(lengths: Lengths) -> NDArray[np.int64]:
    """One length a prompt: i64 (M,), the same at every call.

    A length without variance (mean^2 = square) is its mean. Every other is drawn from its distribution
    (`Lengths.quantile`): that of the answers seen of its kind, of which few are very long; where only moments are
    known, the log-normal one. It is clipped to its bound, which lowers the mean of lengths near it; an answer has at
    least one token where its bound allows.
    """
    level = np.random.default_rng(_SEED).random(len(lengths))
    tokens = np.where(lengths.certain, lengths.mean, np.maximum(lengths.quantile(level), 1.0))
    outputs: NDArray[np.int64] = np.minimum(np.rint(tokens).astype(np.int64), lengths.bound)
    return outputs
