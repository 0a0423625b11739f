"""The practical bound: below every simulated order, and near it where nothing but what it counts is in the way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from blendrun.blend.budget import ConstantBudget
from blendrun.names import OrderName, Overlap
from blendrun.simulate.base import SimulatedEngine, StepTime
from blendrun.simulate.practical import practical_bound
from blendrun.simulate.seconds import overlapped
from blendrun.simulate.simulator import RATES, SHARES, simulate
from tests.simulate.small_jobs import SPARSE, STEP, Job, engines, job_of, jobs

SIMPLE = (OrderName.GIVEN, OrderName.SHUFFLED, OrderName.SORTED, OrderName.LOF)


def seconds(job: Job, engine: SimulatedEngine, step: StepTime = STEP) -> float:
    bound = practical_bound(
        job.tree,
        job.prompts,
        job.outputs,
        step,
        pool_tokens=engine.pool_tokens,
        max_running=engine.max_running,
        shared_reads=engine.shared_reads,
    )
    return bound.seconds([engine.overlap])


@given(
    jobs(), engines(), st.sampled_from(SIMPLE), st.sampled_from((None, False, True)), st.sampled_from((STEP, SPARSE))
)
def test_no_order_is_faster(
    job: Job, engine: SimulatedEngine, name: OrderName, scattered: bool | None, step: StepTime
) -> None:
    # Drafts make several tokens a step, and what the host holds is not computed again.
    engine = replace(engine, drafts=None, host=None)
    fed = job.order(name) if scattered is None else job.blend(engine.pool_tokens, scattered=scattered)
    # A request that is larger than the pool runs alone, and more rows than are allowed where it wants several.
    assume((job.prompts.prompt_tokens + job.rows * job.outputs).max() <= engine.pool_tokens)
    assume(job.rows.max() <= engine.max_running)
    outcome = simulate(job.tree, job.prompts, fed, job.outputs, step, engine)
    # What is sent back gets a token by its second prefill, without a step: a quirk of the model of time.
    assume(outcome.retractions == 0)
    assert outcome.seconds >= seconds(job, engine, step) * (1 - 1e-9)


def test_one_long_answer_takes_its_steps() -> None:
    job = job_of([[1, 2, 3]], [50])
    engine = SimulatedEngine(1000, Overlap.MIXED)
    outcome = simulate(job.tree, job.prompts, job.order(OrderName.GIVEN), job.outputs, STEP, engine)
    assert seconds(job, engine) == pytest.approx(outcome.seconds, rel=1e-3)


def test_short_work_hides_below_the_weights_of_a_long_answer() -> None:
    """As one can come to the bound, no truer one is higher."""
    job = job_of([[1], *([2 + number] for number in range(40))], [200, *([1] * 40)])
    engine = SimulatedEngine(10_000, Overlap.MIXED, ConstantBudget(3))
    fed = job.order(OrderName.LOF)
    outcome = simulate(job.tree, job.prompts, fed, job.outputs, replace(STEP, request=0.0), engine)
    assert outcome.seconds == pytest.approx(seconds(job, engine, replace(STEP, request=0.0)), rel=0.01)


def test_answers_that_do_not_fit_together_take_longer_than_one_of_them() -> None:
    job = job_of([[number] for number in range(4)], [100] * 4)

    def steps(pool: int) -> tuple[int, int]:
        found = practical_bound(job.tree, job.prompts, job.outputs, STEP, pool_tokens=pool)
        return found.path_steps, found.pool_steps

    assert steps(400)[0] == 99
    assert steps(400)[1] <= 99
    # Two by two; the second pair may begin early, while those of the first are short.
    assert 99 < steps(220)[1] <= 198
    assert steps(101)[1] > 198


def test_of_rows_that_are_allowed_so_many_steps_follow() -> None:
    job = job_of([[number] for number in range(6)], [11] * 6)
    found = practical_bound(job.tree, job.prompts, job.outputs, STEP, pool_tokens=10_000, max_running=2)
    assert (found.path_steps, found.pool_steps, found.steps) == (10, 30, 30)


def test_a_job_without_work_takes_no_time() -> None:
    job = job_of([[1]], [0])
    nothing = practical_bound(job.tree, job.prompts, np.zeros(1, dtype=np.int64), STEP, pool_tokens=10)
    assert nothing.steps == 0
    assert nothing.seconds() > 0


@given(st.floats(0.0, 10.0), st.floats(0.0, 10.0))
def test_side_by_side_is_as_the_bound_has_it(compute: float, reads: float) -> None:
    expected = max(compute + reads / 2, reads + compute / 3)
    assert overlapped(compute, reads, SHARES, RATES) == pytest.approx(expected, abs=1e-9)
