"""A run's steps give the constants that made them, within reason: noise, stalls, and what steps cannot tell."""

from __future__ import annotations

from dataclasses import replace
from statistics import median

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blendrun.learned.base import Belief, Evidence
from blendrun.learned.fit import Experts, drifted, enough, first_belief, learned, sure
from blendrun.simulate.base import StepTime
from blendrun.simulate.steptime import CONSTANTS
from tests.learned.machines import BOUND, CARD, JOBS, REAL, UNITS, faster, run, seconds, steps_of, values

MACHINES = {"arithmetic": REAL, "weights": BOUND}


def start() -> Belief:
    return first_belief(values(CARD), UNITS, measured=False)


def after(belief: Belief, evidence: Evidence) -> Belief:
    return learned(belief, UNITS, evidence, Experts())[0]


def as_step(belief: Belief) -> StepTime:
    return StepTime(**dict(zip(CONSTANTS, belief.constants.tolist(), strict=True)))


def error(belief: Belief, real: StepTime, job: tuple[float, int, int]) -> float:
    """Of the predicted seconds of a whole job."""
    steps = steps_of(job, 2000, np.random.default_rng(1))
    return float(seconds(as_step(belief), steps).sum() / seconds(real, steps).sum() - 1)


def errors(machines: list[StepTime], jobs: tuple[tuple[float, int, int], ...] = JOBS) -> list[float]:
    """Of what was predicted of each of several jobs, one after the other, before it ran."""
    belief, found = start(), []
    for number, (real, job) in enumerate(zip(machines, jobs, strict=True)):
        found.append(abs(error(belief, real, job)))
        belief = after(drifted(belief, UNITS, 60.0) if number else belief, run(real, job, seed=number))
    return found


@pytest.mark.parametrize("name", MACHINES)
def test_exact_steps_of_all_kinds_give_back_what_they_take(name: str) -> None:
    real = MACHINES[name]
    steps = np.concatenate([steps_of(job, 400, np.random.default_rng(2)) for job in JOBS])
    found = after(start(), Evidence(steps, seconds(real, steps), np.ones(len(steps))))
    for job in JOBS:
        assert abs(error(found, real, job)) < 0.01


@pytest.mark.parametrize("name", MACHINES)
def test_from_the_second_of_five_different_jobs_on_times_are_right(name: str) -> None:
    found = errors([MACHINES[name]] * 5)
    assert found[0] > 0.1, "the card alone is wrong"
    assert median(found[1:]) < 0.05
    assert max(found[1:]) < 0.15


@pytest.mark.parametrize(
    "speeds",
    [(1.0, 1.0, 1.0, 1.4, 1.4), (1.0, 1.08, 1.16, 1.24, 1.32), (4.0, 4.0, 4.0, 4.0, 4.0), (0.3, 0.3, 0.3, 0.3, 0.3)],
    ids=["something beside from the fourth on", "slower with each run", "four times as slow", "much faster"],
)
def test_a_machine_whose_speed_drifts_is_followed(speeds: tuple[float, ...]) -> None:
    found = errors([faster(REAL, factor) for factor in speeds])
    assert median(found[1:]) < 0.1
    assert found[4] < 0.12, "whatever came before"


def test_steps_that_were_held_up_bend_nothing() -> None:
    calm, stalled = (after(start(), run(REAL, JOBS[0], 400, noise=0.05, stalls=part)) for part in (0.0, 0.05))
    for belief in (calm, stalled):
        assert abs(error(belief, REAL, JOBS[0])) < 0.06


def test_what_steps_cannot_tell_apart_stays_in_proportion() -> None:
    """A job of prompts alone says how fast the machine is, and nothing of what reading the cache takes beside that."""
    prompts = run(faster(CARD, 3.0), (1.0, 1500, 100))
    found = after(start(), prompts)
    kv_token = found.constants[CONSTANTS.index("kv_token")]
    assert kv_token == pytest.approx(3 * CARD.kv_token, rel=0.5)
    told = dict(zip(CONSTANTS, sure(found), strict=True))
    assert told["prefill_token"]
    assert not told["kv_token"]
    more = after(drifted(found, UNITS, 0.0), run(faster(CARD, 3.0), (0.0, 10, 3000)))
    assert dict(zip(CONSTANTS, sure(more), strict=True))["kv_token"]


def test_steps_that_are_all_alike_are_no_trouble() -> None:
    steps = np.tile([[0.0, 0.0, 8.0, 1600.0, 0.0]], (300, 1))
    found = after(start(), Evidence(steps, np.full(300, 0.2), np.ones(300)))
    assert seconds(as_step(found), steps[:1])[0] == pytest.approx(0.2, rel=0.02)


def test_a_run_long_ago_counts_for_less_than_one_just_now() -> None:
    """Of two constants that change against each other, the later run is believed more where the first one is old."""
    place = CONSTANTS.index("kv_token")
    taught = after(start(), run(REAL, JOBS[3], 2000))
    changed = run(replace(REAL, kv_token=2 * REAL.kv_token), JOBS[3], 20, noise=0.02, stalls=0.0)
    soon, late = (after(drifted(taught, UNITS, wait), changed).constants[place] for wait in (0.0, 60 * 86400.0))
    assert REAL.kv_token < soon < late < 2.2 * REAL.kv_token


def test_a_try_with_a_few_steps_outweighs_nothing() -> None:
    taught = after(start(), run(REAL, JOBS[3], 2000))
    alone, beside = [], []
    for seed in range(8):
        few = run(REAL, JOBS[3], 10, noise=0.8, stalls=0.1, seed=seed)
        alone.append(abs(error(after(start(), few), REAL, JOBS[3])))
        beside.append(abs(error(after(drifted(taught, UNITS, 0.0), few), REAL, JOBS[3])))
    assert sum(beside) < 0.6 * sum(alone)


def test_a_mixture_of_experts_reads_fewer_weights_for_a_few_tokens() -> None:
    real, experts = replace(BOUND, weights=0.4), Experts(0.8, 0.9)
    rows = np.arange(1, 65, dtype=np.float64)
    steps = np.stack((0 * rows, 0 * rows, rows, 100 * rows, 0 * rows), axis=1)
    reads = real.weights * (1 - experts.share * experts.miss**rows)
    exact = np.maximum(real.decode_token * rows, reads) + real.kv_token * 100 * rows + real.step
    evidence = Evidence(steps, exact, np.full(64, 10.0))
    off, dense = (learned(start(), UNITS, evidence, each)[1] for each in (experts, Experts()))
    assert off < 0.03
    assert dense > 2 * off


def test_too_little_teaches_nothing() -> None:
    assert not enough(run(REAL, JOBS[0], 4))
    assert not enough(run(faster(REAL, 1e-4), JOBS[0], 40))
    assert enough(run(REAL, JOBS[0], 40))


@settings(max_examples=25)
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 5000), st.integers(0, 300), st.integers(0, 10**6), st.floats(1e-6, 1e5)),
        min_size=8,
        max_size=40,
    )
)
def test_whatever_a_log_says_constants_are_finite_and_not_negative(steps: list[tuple[int, int, int, float]]) -> None:
    rows = np.array([(p, p * p, r, c if r else 0, int(p > 0)) for p, r, c, _ in steps], dtype=np.float64)
    evidence = Evidence(rows, np.array([took for *_, took in steps]), np.ones(len(steps)))
    found = after(start(), evidence)
    assert np.isfinite(found.constants).all()
    assert (found.constants >= 0).all()
    assert np.isfinite(found.covariance).all()
    assert found.constants[CONSTANTS.index("prefill_token")] > 0
    assert found.constants[CONSTANTS.index("kv_token")] > 0
    assert np.linalg.eigvalsh(found.covariance / np.outer(UNITS, UNITS)).min() > 0
