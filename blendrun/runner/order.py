"""Orders in which accepted rows are fed to the engine."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

_SHUFFLE_SEED = 0


class Order(StrEnum):
    """given: as the input has them. shuffled: a permutation that is the same in every run of a job."""

    GIVEN = "given"
    SHUFFLED = "shuffled"


def arrange(rows: NDArray[np.int64], order: Order) -> NDArray[np.int64]:
    """`rows` in the order of `order`; i64, same length."""
    if order is Order.GIVEN:
        return rows
    return np.random.default_rng(_SHUFFLE_SEED).permutation(rows)
