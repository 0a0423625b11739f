"""What the steps of an engine would take on a machine: the same model of a step's time that the simulator goes by."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray

from blendrun.names import Overlap
from blendrun.simulate.base import StepTime
from blendrun.simulate.seconds import step_seconds
from blendrun.simulate.simulator import MODES, RATES, SHARES
from blendrun.simulate.state import CONSTANTS

StepPrice = Callable[[float, float, float, float, float], float]


def step_prices(steps: NDArray[np.float64], step: StepTime, overlap: Overlap) -> NDArray[np.float64]:
    """Seconds of each step: f64 (S,).

    steps: f64 (S, 5), a row a step: tokens computed by prefill, the sum of b^2 - a^2 over its chunks from token a to
        token b, rows that decode, KV tokens that they read, requests that begin.
    """
    price = step_price(step, overlap)
    return np.fromiter((price(*each) for each in steps.tolist()), dtype=np.float64, count=len(steps))


def step_price(step: StepTime, overlap: Overlap) -> StepPrice:
    """Seconds of a step by what is in it: the columns of `step_prices`, one after the other."""
    state = SimpleNamespace(mode=MODES[overlap], **{name: getattr(step, name) for name in CONSTANTS})

    def price(prefill: float, square: float, rows: float, context: float, new: float) -> float:
        return float(step_seconds(state, prefill, square, rows, context, new, SHARES, RATES)[0])

    return price
