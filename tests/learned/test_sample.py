"""A few steps stand for all: memory has a bound, weights add up, rare steps are not lost."""

from __future__ import annotations

import numpy as np
import pytest

from blendrun.learned.sample import StepSample, joined


def test_a_long_run_is_kept_in_little() -> None:
    sample = StepSample()
    for step in range(100_000):
        sample.add(0, 0.0, 1 + step % 200, 300 * (1 + step % 200), 0, 0.01)
    sample.add(4096, 4096.0**2, 0, 0, 3, 2.0)
    found = sample.evidence
    assert len(found.seconds) < 500
    assert found.weight.sum() == pytest.approx(100_001)
    assert found.steps[found.seconds == 2.0].tolist() == [[4096, 4096.0**2, 0, 0, 3]]
    assert found.total == pytest.approx(1002.0, rel=0.01)


def test_steps_of_all_times_of_a_run_are_kept() -> None:
    sample = StepSample()
    for step in range(5000):
        sample.add(0, 0.0, 8, 1000, 0, float(step))
    kept = np.sort(sample.evidence.seconds)
    assert len(kept) >= 12
    assert np.diff(kept).max() < 2 * np.diff(kept).min() + 1


def test_engines_side_by_side_are_one_run() -> None:
    samples = [StepSample(), StepSample(), StepSample()]
    samples[0].add(10, 100.0, 0, 0, 1, 0.5)
    samples[2].add(0, 0.0, 2, 40, 0, 0.25)
    found = joined(samples)
    assert found.steps.tolist() == [[10, 100, 0, 0, 1], [0, 0, 2, 40, 0]]
    assert found.total == 0.75
    assert joined(()).steps.shape == (0, 5)
