"""The constants of the step model from observations, by the least sum of absolute relative errors.

Not of their squares: on a shared machine a few batches take twice as long for no reason of their own, and squares would
bend all constants towards those.

A step's matrix products take the larger of their arithmetic and one pass over the weights. Which of the two holds is
decided by the step's tokens, so each possible border is tried: between borders the model is linear.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from blendrun.calibrate.base import Constants, Fit, Observation, Point, Step
from blendrun.errors import UsageError
from blendrun.learned.nnls import nnls

_ROUNDS = 20
# Errors below this count alike.
_EXACT = 1e-3
# Weights that differ by no more (relative) give the same constants again.
_SETTLED = 1e-9
# Places in `Constants` of what a step's matrix products take.
_PREFILL_TOKEN, _WEIGHTS = 0, 3


def fit(observations: Sequence[Observation]) -> Fit:
    """Fit all constants but those that no observation depends on, which are 0.

    A decode row counts in matrix products as a prefill token does: without steps that mix both, the two costs of a row
    (in products and in attention) are told apart only so.
    Raises UsageError where there are fewer observations than constants.
    """
    used = [observation for observation in observations if not observation.held_out]
    wanted = len(Constants.__dataclass_fields__)
    if len(used) < wanted:
        raise UsageError(
            f"{len(used)} batches that this engine can hold cannot give {wanted} constants: give it a larger KV pool "
            "or context"
        )
    best: tuple[bool, float, Constants] | None = None
    counts = Counts.of(used)
    for border in _borders(counts.tokens):
        constants = _solve(counts, border)
        error = float(np.abs(counts.predict(constants) / counts.seconds - 1.0).mean())
        # Not the first that is as good: without a pass over the weights the model is simpler.
        # No plan can be made with tokens that take no time: such constants only where there are no others.
        useless = not (constants.prefill_token and constants.kv_token)
        if best is None or (useless, error) < (best[0], best[1] * (1 - 1e-9)):
            best = useless, error, constants
    assert best is not None
    points = _points(used, best[2])
    errors = [abs(point.error) for point in points]
    return Fit(
        constants=best[2],
        points=points,
        held_out=_points([observation for observation in observations if observation.held_out], best[2]),
        mean_error=float(np.mean(errors)),
        worst_error=max(errors),
    )


def step_seconds(step: Step, constants: Constants) -> float:
    """What the model says of one step (the formula of `blendrun.simulate.base.StepTime`)."""
    products = max(constants.prefill_token * (step.prefill + step.rows), constants.weights)
    return (
        products
        + constants.prefill_square * step.square
        + constants.kv_token * step.context
        + constants.row * step.rows
        + constants.request * step.admitted
        + constants.step
    )


def predict(observation: Observation, constants: Constants) -> float:
    """Seconds that the model gives for an observation."""

    def total(steps: Iterable[Step]) -> float:
        return sum(step_seconds(step, constants) for step in steps)

    return total(observation.steps) - total(observation.minus) + constants.round_trip * observation.round_trips


def _points(observations: Iterable[Observation], constants: Constants) -> tuple[Point, ...]:
    found = []
    for observation in observations:
        predicted = predict(observation, constants)
        found.append(
            Point(observation.name, observation.seconds, predicted, predicted / observation.seconds - 1.0),
        )
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Counts:
    """How often each constant is in each of m observations, from which the model's matrix for a border is soon made.

    linear: f64 (m, constants), in the order of `Constants`; those of matrix products are left 0. tokens: i64 (u,), of
    steps, each number once, rising. steps: f64 (m, u), how many of an observation's steps compute so many tokens; those
    whose time was taken off count negative. seconds: f64 (m,), as measured.
    """

    linear: NDArray[np.float64]
    tokens: NDArray[np.int64]
    steps: NDArray[np.float64]
    seconds: NDArray[np.float64]

    @classmethod
    def of(cls, observations: Sequence[Observation]) -> Counts:
        signed = [
            (place, sign, step)
            for place, observation in enumerate(observations)
            for sign, steps in ((1.0, observation.steps), (-1.0, observation.minus))
            for step in steps
        ]
        place = np.array([each[0] for each in signed], dtype=np.int64)
        sign = np.array([each[1] for each in signed])
        computed = np.array([step.prefill + step.rows for *_, step in signed], dtype=np.int64)
        tokens, column = np.unique(computed, return_inverse=True)
        steps = np.zeros((len(observations), len(tokens)))
        np.add.at(steps, (place, column), sign)
        linear = np.zeros((len(observations), len(Constants.__dataclass_fields__)))
        one_step = [(0, step.square, step.context, 0, step.rows, 1, step.admitted, 0) for *_, step in signed]
        np.add.at(linear, place, sign[:, None] * np.array(one_step, dtype=np.float64))
        linear[:, -1] = [observation.round_trips for observation in observations]
        return cls(linear, tokens, steps, np.array([observation.seconds for observation in observations]))

    def matrix(self, border: int) -> NDArray[np.float64]:
        """f64 (m, constants): the model, where steps of fewer tokens than `border` are one pass over the weights."""
        bound = self.tokens < border
        matrix = self.linear.copy()
        matrix[:, _PREFILL_TOKEN] = self.steps @ np.where(bound, 0, self.tokens)
        matrix[:, _WEIGHTS] = self.steps @ bound
        return matrix

    def predict(self, constants: Constants) -> NDArray[np.float64]:
        """f64 (m,), seconds: `predict` of each observation."""
        products = np.maximum(constants.prefill_token * self.tokens, constants.weights)
        seconds: NDArray[np.float64] = self.steps @ products + self.linear @ np.array(astuple(constants))
        return seconds


def _borders(tokens: NDArray[np.int64]) -> list[int]:
    """Token counts below which a step may be bound by the weights; 0 first: no step is."""
    return [0, *(tokens + 1).tolist()]


def _solve(counts: Counts, border: int) -> Constants:
    # Relative errors: a burst of seconds must not drown a step of milliseconds.
    relative = counts.matrix(border) / counts.seconds[:, None]
    weights, found = np.ones(len(relative)), np.zeros(relative.shape[1])
    # Least absolute errors as least squares, each row weighted by what it missed by the time before.
    for _ in range(_ROUNDS):
        found = nnls(relative * weights[:, None], weights, start=found)
        before, weights = weights, 1 / np.sqrt(np.maximum(np.abs(relative @ found - 1.0), _EXACT))
        if (np.abs(weights - before) <= _SETTLED * before).all():
            break
    return Constants(*map(float, found))
