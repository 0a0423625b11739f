"""Least squares with coefficients that are not negative (Lawson and Hanson 1974, chapter 23)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_TOLERANCE = 1e-10


def nnls(
    matrix: NDArray[np.float64], target: NDArray[np.float64], start: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """The x >= 0, f64 (n,), that minimises |matrix x - target|. matrix: f64 (m, n); target: f64 (m,).

    start: some x >= 0, f64 (n,): the nearer it is to the answer (above all in what is 0), the sooner that is found.
    A column of zeros gets the coefficient 0.
    """
    # Columns of one length: seconds a token and seconds a squared token differ by many orders of magnitude.
    norms = np.linalg.norm(matrix, axis=0)
    scale = np.where(norms > 0, norms, 1.0)
    scaled = matrix / scale
    columns = matrix.shape[1]
    x = np.zeros(columns) if start is None else np.where(norms > 0, start * scale, 0.0)
    free = x > 0
    if free.any():
        x = _within_bounds(scaled, target, x, free)
    for _ in range(10 * columns):
        slope = scaled.T @ (target - scaled @ x)
        slope[free] = -np.inf
        best = int(np.argmax(slope))
        if slope[best] <= _TOLERANCE * max(float(np.linalg.norm(target)), 1e-300):
            break
        free[best] = True
        x = _within_bounds(scaled, target, x, free)
    unscaled: NDArray[np.float64] = x / scale
    return unscaled


def _within_bounds(
    matrix: NDArray[np.float64], target: NDArray[np.float64], x: NDArray[np.float64], free: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Solve for the free coefficients; those that would turn negative are set to 0 and no longer free."""
    while True:
        solved = np.zeros_like(x)
        solved[free] = np.linalg.lstsq(matrix[:, free], target, rcond=None)[0]
        negative = free & (solved <= 0)
        if not negative.any():
            return solved
        step = float(np.min(x[negative] / np.maximum(x[negative] - solved[negative], 1e-300)))
        x = x + step * (solved - x)
        free &= x > _TOLERANCE
        x = np.where(free, x, 0.0)
