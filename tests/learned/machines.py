"""Machines whose constants are known, and the steps that a run on one of them takes."""

from __future__ import annotations

import numpy as np

from blendrun.learned.base import Evidence, Floats
from blendrun.learned.sample import StepSample
from blendrun.simulate.base import StepTime
from blendrun.simulate.steptime import CONSTANTS

# What rates would let expect of two cores with a small model, and what such a machine is really like.
CARD = StepTime(
    prefill_token=2.3e-3, decode_token=2.9e-3, prefill_square=1e-8, kv_token=3.6e-6, weights=4.2e-2, request=5e-4
)
REAL = StepTime(
    prefill_token=1.9e-3, decode_token=2.9e-3, prefill_square=4e-8, kv_token=1.3e-5, row=1.5e-3, step=8e-3, request=4e-3
)
# The same where few tokens wait for the weights.
BOUND = StepTime(
    prefill_token=1.9e-3, decode_token=2.9e-3, prefill_square=4e-8, kv_token=1.3e-5, weights=8e-2, step=8e-3
)
UNITS = np.array([2.3e-3, 2.9e-3, 1e-8, 3.6e-6, 4.2e-2, 2.9e-3, 5.7e-2, 5e-4])
# Share of prefill steps, longest prompt, longest context of a row: of five jobs that are not alike.
JOBS = ((0.2, 500, 300), (0.9, 1500, 100), (0.02, 200, 800), (0.3, 300, 1500), (0.1, 800, 200))


def values(step: StepTime) -> Floats:
    return np.array([getattr(step, name) for name in CONSTANTS])


def faster(step: StepTime, factor: float) -> StepTime:
    """The same machine, each constant that many times as long."""
    return StepTime(**{name: factor * getattr(step, name) for name in CONSTANTS})


def seconds(step: StepTime, steps: Floats) -> Floats:
    """What steps take there, written out by hand: f64 (S,)."""
    prefill, square, rows, context, new = steps.T
    products = np.maximum(step.prefill_token * prefill + step.decode_token * rows, step.weights)
    other = step.step + step.request * new + step.row * rows
    found: Floats = products + step.prefill_square * square + step.kv_token * context + other
    return found


def steps_of(job: tuple[float, int, int], count: int, rng: np.random.Generator) -> Floats:
    """Steps as `step_prices` has them: f64 (count, 5)."""
    share, prompt, context = job
    found = []
    for _ in range(count):
        if rng.random() < share:
            known, added = int(rng.integers(0, prompt)), int(rng.integers(20, prompt))
            found.append((added, (known + added) ** 2 - known**2, 0, 0, int(rng.integers(1, 4))))
        else:
            rows = int(rng.integers(1, 32))
            found.append((0, 0, rows, rows * int(rng.integers(50, context)), 0))
    return np.array(found, dtype=np.float64)


def taken(step: StepTime, steps: Floats, rng: np.random.Generator, noise: float, stalls: float) -> StepSample:
    """The steps as a run's log has them. noise: relative, sigma. stalls: part of the steps that something held up."""
    sample = StepSample()
    for what, exact in zip(steps.tolist(), seconds(step, steps).tolist(), strict=True):
        held = rng.uniform(3, 30) if rng.random() < stalls else 1.0
        prefill, square, rows, context, new = what
        sample.add(int(prefill), square, int(rows), int(context), int(new), exact * held * np.exp(rng.normal(0, noise)))
    return sample


def run(
    step: StepTime,
    job: tuple[float, int, int],
    count: int = 500,
    *,
    noise: float = 0.1,
    stalls: float = 0.02,
    seed: int = 0,
) -> Evidence:
    """What a run of a job leaves on such a machine."""
    rng = np.random.default_rng((seed, count))
    return taken(step, steps_of(job, count, rng), rng, noise, stalls).evidence
