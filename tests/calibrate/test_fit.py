"""The fit finds the constants that made the measurements, bears noise, and stays sane where it cannot know."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blendrun.calibrate.base import Constants, Observation, Step
from blendrun.calibrate.design import Room
from blendrun.calibrate.fit import Counts, fit, predict, step_seconds
from blendrun.errors import UsageError
from blendrun.learned.nnls import nnls
from tests.calibrate.known import A100, CPU, GPU, GPU_ROOM, sweep

MACHINES = {"cpu": CPU, "gpu": GPU}


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_exact_measurements_give_the_constants_back(platform: str) -> None:
    true = MACHINES[platform]
    found = fit(sweep(platform, true))  # type: ignore[arg-type]
    assert found.worst_error < 1e-6
    assert all(abs(point.error) < 1e-6 for point in found.held_out)
    for field in dataclasses.fields(Constants):
        if field.name == "weights" and not true.weights:
            continue
        assert getattr(found.constants, field.name) == pytest.approx(getattr(true, field.name), rel=1e-3), field.name


@pytest.mark.parametrize("true", [GPU, A100], ids=["h100", "a100"])
@pytest.mark.parametrize("chunk", [2048, 4096, 8192, 16384])
@pytest.mark.parametrize(
    "room",
    [
        GPU_ROOM,
        Room(kv_tokens=143_000, context_length=131_072, max_running=2048),
        Room(kv_tokens=100_000, context_length=8192, max_running=320),
        Room(kv_tokens=30_000, context_length=8192, max_running=2048),
        Room(kv_tokens=100_000, context_length=8192, max_running=32),
    ],
    ids=["large", "40 GB", "bounded", "24 GB", "few at once"],
)
def test_a_quick_sweep_of_a_gpu_determines_every_constant(true: Constants, chunk: int, room: Room) -> None:
    found = fit(sweep("gpu", true, quick=True, room=room, chunk=chunk))
    for field in dataclasses.fields(Constants):
        assert getattr(found.constants, field.name) == pytest.approx(getattr(true, field.name), rel=1e-3), field.name


def test_a_quick_sweep_of_the_cpu_predicts_what_it_did_not_fit() -> None:
    found = fit(sweep("cpu", CPU, quick=True))
    assert [point.error for point in found.held_out] == [pytest.approx(0, abs=1e-6)]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("true", [GPU, A100], ids=["h100", "a100"])
def test_a_quick_sweep_bears_noise_of_two_percent(true: Constants, seed: int) -> None:
    found = fit(sweep("gpu", true, noise=0.02, seed=seed, quick=True))
    exact = [observation.seconds for observation in sweep("gpu", true, quick=True) if observation.held_out]
    for point, seconds in zip(found.held_out, exact, strict=True):
        assert point.predicted == pytest.approx(seconds, rel=0.06)


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize("seed", range(5))
def test_noise_of_two_percent_leaves_the_predictions_right(platform: str, seed: int) -> None:
    true = MACHINES[platform]
    found = fit(sweep(platform, true, noise=0.02, seed=seed))  # type: ignore[arg-type]
    assert found.mean_error < 0.03
    exact = [observation.seconds for observation in sweep(platform, true) if observation.held_out]  # type: ignore[arg-type]
    for point, seconds in zip(found.held_out, exact, strict=True):
        assert point.predicted == pytest.approx(seconds, rel=0.05)


@pytest.mark.parametrize("victims", [(11, 12), (3, 20), (8, 15)])
def test_two_batches_that_were_disturbed_bend_nothing(victims: tuple[int, int]) -> None:
    observations = list(sweep("cpu", CPU, noise=0.01))
    for place in victims:
        observations[place] = dataclasses.replace(observations[place], seconds=2 * observations[place].seconds)
    found = fit(observations)
    exact = {observation.name: observation.seconds for observation in sweep("cpu", CPU)}
    errors = [abs(point.predicted / exact[point.name] - 1) for point in (*found.points, *found.held_out)]
    assert max(errors) < 0.08


def test_no_constant_is_negative_however_bad_the_measurements() -> None:
    chance = np.random.default_rng(3)
    wild = [
        dataclasses.replace(observation, seconds=float(chance.lognormal(0.0, 2.0))) for observation in sweep("cpu", CPU)
    ]
    found = fit(wild)
    assert all(value >= 0 for value in dataclasses.astuple(found.constants))
    assert np.isfinite(found.mean_error)


def test_what_no_measurement_depends_on_is_zero() -> None:
    decode = [
        Observation(f"{rows}", 1e-3 * rows, (Step(rows=rows, context=0),), round_trips=0) for rows in range(1, 12)
    ]
    found = fit(decode)
    assert found.worst_error < 1e-6
    assert found.constants.prefill_square == found.constants.kv_token == found.constants.request == 0


def test_too_few_measurements_are_refused() -> None:
    with pytest.raises(UsageError, match="larger KV pool"):
        fit(sweep("cpu", CPU)[:5])


def test_held_out_measurements_change_nothing() -> None:
    observations = sweep("cpu", CPU, noise=0.02)
    bent = [
        dataclasses.replace(observation, seconds=9 * observation.seconds) if observation.held_out else observation
        for observation in observations
    ]
    assert fit(bent).constants == fit(observations).constants
    assert all(point.error == pytest.approx(-8 / 9, abs=0.02) for point in fit(bent).held_out)


@pytest.mark.parametrize("true", [CPU, GPU], ids=["cpu", "gpu"])
def test_what_a_fit_counts_at_once_is_what_each_observation_is_predicted_as(true: Constants) -> None:
    observations = sweep("gpu", true, quick=True)
    counts = Counts.of(observations)
    each = [predict(observation, true) for observation in observations]
    assert counts.predict(true) == pytest.approx(each)
    border = int(true.weights / true.prefill_token) + 1
    assert counts.matrix(border) @ dataclasses.astuple(true) == pytest.approx(each)


def test_a_step_of_few_tokens_takes_one_pass_over_the_weights() -> None:
    few, many = Step(rows=1), Step(prefill=1000)
    assert step_seconds(few, GPU) == pytest.approx(GPU.weights + GPU.row + GPU.step)
    assert step_seconds(many, GPU) == pytest.approx(1000 * GPU.prefill_token + GPU.step)


@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(5, 12))
def test_least_squares_without_negatives_meet_their_conditions(seed: int, columns: int, rows: int) -> None:
    """Kuhn-Tucker: a free coefficient has no slope left, one at 0 would only get worse. From wherever it starts."""
    chance = np.random.default_rng(seed)
    norms = 10.0 ** chance.integers(-6, 6, columns)
    matrix = chance.normal(size=(rows, columns)) * norms
    target = chance.normal(size=rows)
    for start in (None, np.maximum(chance.normal(size=columns), 0.0) / norms):
        x = nnls(matrix, target, start)
        slope = (matrix / np.linalg.norm(matrix, axis=0)).T @ (target - matrix @ x)
        assert (x >= 0).all()
        assert (slope <= 1e-7).all()
        assert (np.abs(slope[x > 0]) <= 1e-7).all()


def test_equal_and_empty_columns_do_not_stop_least_squares() -> None:
    column = np.arange(1.0, 6.0, dtype=np.float64)
    matrix = np.stack([column, column, np.zeros(5)], axis=1)
    x = nnls(matrix, 3 * column)
    assert x[2] == 0
    assert x[0] + x[1] == pytest.approx(3.0)
