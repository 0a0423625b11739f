"""What a run's steps change in what is believed of the constants: a Kalman filter, a run a measurement.

Between two runs the machine may have become slower or faster as a whole, and each constant a little by itself. A run's
steps are fitted by least squares with constants that are not negative, weighted by their time, so that the predicted
sum is right; a step that misses by more than half counts as one that misses by half, whatever held it up. What the
steps cannot tell apart stays in proportion to what was believed before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blendrun.learned.base import Belief, Evidence, Floats
from blendrun.learned.nnls import nnls

# Of a belief that rests on rates alone: off by a factor in each constant, and by a larger one in all.
_UNKNOWN, _UNKNOWN_SPEED = 1.0, 3.0
# Of a calibration: batches are not a job, and it may be long ago.
_MEASURED, _MEASURED_SPEED = 0.2, 0.3
# From one run to the next, each constant by itself and all alike; grows with the square root of the weeks between.
_DRIFT, _DRIFT_SPEED, _WEEK, _MOST_WEEKS = 0.07, 0.15, 7 * 86400.0, 8.0
# By how much a run is slower or faster than the machine is, for reasons of its own.
_EXCURSION = 0.1
# A run counts as so many independent steps at most: what the model misses of a kind of job it misses in each of them.
_INDEPENDENT = 64.0
_LEAST_NOISE, _MOST_NOISE = 0.05, 0.5
# A relative miss beyond which more makes no difference.
_STALL = 0.5
# Fewer steps, or seconds, teach nothing.
_FEWEST_STEPS, _FEWEST_SECONDS = 8, 0.5
_ROUNDS, _FIRST_ROUNDS, _BORDERS = 12, 4, 10
# What a token takes at least, of what it took: no plan can be made with tokens that take no time.
_LEAST = 1e-2
_TOKENS = [0, 1, 3]
# A constant is learned where its standard deviation is less than this part of it.
_SURE = 0.35


@dataclass(frozen=True, slots=True)
class Experts:
    """Of a mixture of experts, the part of the weights that a step of t tokens does not read: share * miss ** t."""

    share: float = 0.0
    miss: float = 0.0


def first_belief(constants: Floats, units: Floats, *, measured: bool) -> Belief:
    """What is believed before any run. units: f64 (8,), what each constant may be like where it is given as 0."""
    alone, together = (_MEASURED, _MEASURED_SPEED) if measured else (_UNKNOWN, _UNKNOWN_SPEED)
    spread = alone * np.maximum(constants, (0.1 if measured else 1.0) * units)
    return Belief(constants, np.diag(spread**2) + together**2 * np.outer(constants, constants))


def drifted(belief: Belief, units: Floats, seconds: float) -> Belief:
    """What is left of a belief for the next run, so many seconds later."""
    more = 1.0 + min(max(seconds, 0.0) / _WEEK, _MOST_WEEKS)
    own = _DRIFT * np.maximum(belief.constants, 0.05 * units)
    speed = _DRIFT_SPEED**2 * np.outer(belief.constants, belief.constants)
    return Belief(belief.constants, belief.covariance + more * (np.diag(own**2) + speed))


def enough(evidence: Evidence) -> bool:
    """Whether a run's steps teach anything."""
    return len(evidence.seconds) >= _FEWEST_STEPS and evidence.total >= _FEWEST_SECONDS


def learned(before: Belief, units: Floats, evidence: Evidence, experts: Experts) -> tuple[Belief, float]:
    """The belief after a run, and its mean |error| over the run's steps. units: see `first_belief`."""
    problem = _Problem(before, units, evidence, experts)
    found = problem.solve()
    predicted = problem.predict(found)
    share = evidence.weight * predicted
    error = np.minimum(np.abs(evidence.seconds / predicted - 1.0), 1.0)
    covariance = _inverse(problem.information(found)) * np.outer(units, units)
    # Of how much faster or slower this run was as a whole, some is its own: others were at work beside it, or not.
    kept = problem.speed_variance / (problem.speed_variance + _EXCURSION**2)
    faster = float(evidence.weight @ problem.predict(problem.before)) / float(share.sum())
    constants = found * units * faster ** (1 - kept)
    covariance += kept * _EXCURSION**2 * np.outer(constants, constants)
    return Belief(constants, covariance), float(share @ error / share.sum())


def sure(belief: Belief) -> tuple[bool, ...]:
    """Of each constant, whether runs have told it from the others."""
    spread = np.sqrt(np.maximum(np.diag(belief.covariance), 0.0))
    return tuple((spread < _SURE * belief.constants).tolist())


def _inverse(matrix: Floats) -> Floats:
    """Of a symmetric matrix."""
    found = np.linalg.inv(matrix).astype(np.float64)
    return (found + found.T) / 2


class _Problem:
    """One fit. Constants are in `units` here, so that seconds a token and a squared token are of one size."""

    def __init__(self, before: Belief, units: Floats, evidence: Evidence, experts: Experts) -> None:
        self._units = units
        self.before = before.constants / units
        self._covariance = before.covariance / np.outer(units, units)
        self._precision = _inverse(self._covariance)
        self._seconds, self._weight = np.maximum(evidence.seconds, 1e-9), evidence.weight
        prefill, square, rows, context, new = evidence.steps.T
        self._tokens = prefill + rows
        ones = np.ones(len(rows))
        # What each constant is multiplied with where arithmetic bounds the products of a step, and where weights do.
        reads = 1.0 - experts.share * experts.miss**self._tokens if experts.share else ones
        self._arithmetic = np.stack((prefill, rows, square, context, 0 * ones, rows, ones, new), axis=1) * units
        self._reading = np.stack((0 * rows, 0 * rows, square, context, reads, rows, ones, new), axis=1) * units

    @property
    def speed_variance(self) -> float:
        """Of what was believed of the seconds of all steps together, relative."""
        predicted = self.predict(self.before)
        bound = self._reading @ self.before > self._arithmetic @ self.before
        total = self._weight @ np.where(bound[:, None], self._reading, self._arithmetic)
        return float(total @ self._covariance @ total) / float(self._weight @ predicted) ** 2

    def predict(self, constants: Floats) -> Floats:
        """Seconds of each step."""
        seconds: Floats = np.maximum(self._arithmetic @ constants, self._reading @ constants)
        return np.maximum(seconds, 1e-9)

    def solve(self) -> Floats:
        """The best constants of those found from each border between steps bound by weights and by arithmetic."""
        best = self._refined(np.zeros(len(self._tokens), dtype=np.bool_))
        tokens = np.unique(self._tokens)
        places = np.unique(np.linspace(0, len(tokens) - 1, _BORDERS).astype(np.int64))
        for border in tokens[places].tolist():
            found = self._refined(self._tokens <= border)
            if self._cost(found) < self._cost(best) * (1 - 1e-6):
                best = found
        return best

    def _refined(self, bound: NDArray[np.bool_]) -> Floats:
        """From which steps are bound by the weights to constants, and back."""
        found, scale = self.before, self._seconds
        shares = self._weight * self._seconds
        misses, noise = np.ones(len(shares)), 2 * _LEAST_NOISE
        for number in range(_ROUNDS):
            rows = np.where(bound[:, None], self._reading, self._arithmetic) / scale[:, None]
            weight = self._count / noise**2 * shares * misses / shares.sum()
            found = self._solved(rows, self._seconds / scale, weight)
            predicted = self.predict(found)
            if number < _FIRST_ROUNDS:
                # Least absolute errors, whatever the steps look like from what was believed.
                misses = 1.0 / np.maximum(np.abs(predicted / self._seconds - 1.0), 0.05)
                misses /= misses.mean()
                continue
            # By what is predicted: a step that was held up is to count neither for less nor for more than others.
            bound = self._reading @ found > self._arithmetic @ found
            scale, shares, noise = predicted, self._weight * predicted, self._noise(predicted)
            misses = np.minimum(_STALL / np.maximum(np.abs(self._seconds / predicted - 1.0), 1e-9), 1.0)
        return found

    def _solved(self, rows: Floats, target: Floats, weight: Floats) -> Floats:
        normal = (rows * weight[:, None]).T @ rows + self._precision
        right = (rows * weight[:, None]).T @ target + self._precision @ self.before
        root = np.linalg.cholesky(normal).astype(np.float64)
        found = nnls(root.T, np.linalg.solve(root, right).astype(np.float64))
        least = np.zeros(len(found))
        least[_TOKENS] = _LEAST * self.before[_TOKENS]
        return np.maximum(found, least)

    @property
    def _count(self) -> float:
        """As how many independent steps the run counts."""
        return min(float(self._weight.sum()), _INDEPENDENT)

    def _noise(self, predicted: Floats) -> float:
        """Relative, of a step."""
        share = self._weight * predicted
        misses = np.minimum(np.abs(self._seconds / predicted - 1.0), _STALL)
        return float(np.clip(np.sqrt(share @ misses**2 / share.sum()), _LEAST_NOISE, _MOST_NOISE))

    def information(self, found: Floats) -> Floats:
        """Precision of the constants: of the run, at the noise that it had, and of what was believed before."""
        predicted = self.predict(found)
        share = self._weight * predicted / (self._weight @ predicted)
        bound = self._reading @ found > self._arithmetic @ found
        rows = np.where(bound[:, None], self._reading, self._arithmetic) / predicted[:, None]
        weight = self._count / self._noise(predicted) ** 2 * share
        own: Floats = (rows * weight[:, None]).T @ rows
        return own + self._precision

    def _cost(self, found: Floats) -> float:
        """What is to be least: misses of steps, bounded each, and of what was believed."""
        predicted = self.predict(found)
        misses = np.abs(self._seconds - predicted) / np.sqrt(self._seconds * predicted)
        bounded = np.where(misses < _STALL, misses**2, _STALL * (2 * misses - _STALL))
        share = self._weight * self._seconds
        away = found - self.before
        precision = self._count / (2 * _LEAST_NOISE) ** 2
        return float(precision * (share @ bounded) / share.sum() + away @ self._precision @ away)
