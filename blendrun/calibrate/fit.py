"""The constants of the step model from observations, by the least sum of absolute relative errors.

Not of their squares: on a shared machine a few batches take twice as long for no reason of their own, and squares would
bend all constants towards those.

A step's matrix products take the larger of their arithmetic and one pass over the weights. Which of the two holds is
decided by the step's tokens, so each possible border is tried: between borders the model is linear.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from blendrun.calibrate.base import Constants, Fit, Observation, Point, Step
from blendrun.errors import UsageError
from blendrun.learned.nnls import nnls

_ROUNDS = 20
# Errors below this count alike.
_EXACT = 1e-3


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
    for border in _borders(used):
        constants = _solve(used, border)
        error = float(np.mean([abs(point.error) for point in _points(used, constants)]))
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


def _borders(observations: Iterable[Observation]) -> list[int]:
    """Token counts below which a step may be bound by the weights; 0 first: no step is."""
    tokens = {step.prefill + step.rows for observation in observations for step in observation.steps}
    return [0, *(count + 1 for count in sorted(tokens))]


def _solve(observations: Sequence[Observation], border: int) -> Constants:
    matrix = np.array([_row(observation, border) for observation in observations])
    seconds = np.array([observation.seconds for observation in observations])
    # Relative errors: a burst of seconds must not drown a step of milliseconds.
    relative, ones = matrix / seconds[:, None], np.ones(len(seconds))
    weights, found = ones, np.zeros(matrix.shape[1])
    # Least absolute errors as least squares, each row weighted by what it missed by the time before.
    for _ in range(_ROUNDS):
        found = nnls(relative * weights[:, None], weights)
        weights = 1 / np.sqrt(np.maximum(np.abs(relative @ found - ones), _EXACT))
    return Constants(*map(float, found))


def _row(observation: Observation, border: int) -> NDArray[np.float64]:
    """How often each constant is in an observation, in the order of `Constants`."""
    row = np.zeros(len(Constants.__dataclass_fields__))
    for sign, steps in ((1.0, observation.steps), (-1.0, observation.minus)):
        for step in steps:
            tokens = step.prefill + step.rows
            bound = tokens < border
            counts = (
                0 if bound else tokens, step.square, step.context, int(bound), step.rows, 1, step.admitted, 0,
            )  # fmt: skip
            row += sign * np.array(counts, dtype=np.float64)
    row[-1] = observation.round_trips
    return row
