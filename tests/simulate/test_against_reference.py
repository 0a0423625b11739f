"""The simulator gives what a slow step-by-step reference gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blendrun.blend.base import Blend, Order
from blendrun.blend.budget import AdaptiveBudget, ConstantBudget, CrossoverBudget, TurnsBudget
from blendrun.names import OrderName, Overlap
from blendrun.simulate.base import EXACT, Drafts, Eviction, HostCache, SimulatedEngine, StepTime
from blendrun.simulate.simulator import simulate
from tests.simulate.reference import Reference
from tests.simulate.small_jobs import NARROW, SPARSE, STEP, Job, engines, job_of, jobs

SIMPLE = (OrderName.GIVEN, OrderName.SHUFFLED, OrderName.SORTED, OrderName.LOF)


def compare(
    job: Job,
    fed: Order | Blend,
    engine: SimulatedEngine,
    step: StepTime = STEP,
    expected: np.ndarray | None = None,
    limits: np.ndarray | None = None,
    fixed: np.ndarray | None = None,
) -> None:
    believed = job.outputs if expected is None else expected
    told = (job.outputs.tolist(), believed.tolist(), step, engine)
    slow = Reference(
        *(job.tree, job.prompts, fed, *told),
        limits=None if limits is None else limits.tolist(),
        fixed=None if fixed is None else fixed.tolist(),
    ).run()
    fast = simulate(
        *(job.tree, job.prompts, fed, job.outputs, step, engine), expected=expected, limits=limits, fixed=fixed
    )
    assert (fast.hit_tokens, fast.prefill_tokens, fast.recomputed_tokens, fast.decode_tokens, fast.retractions) == (
        slow.hits,
        slow.prefilled,
        slow.recomputed,
        slow.decoded,
        slow.retractions,
    )
    assert (fast.steps, fast.loaded_tokens) == (slow.steps, slow.loaded)
    assert fast.seconds == pytest.approx(slow.now, rel=1e-9)
    assert fast.compute_seconds == pytest.approx(slow.compute, rel=1e-9)
    assert fast.memory_seconds == pytest.approx(slow.memory, rel=1e-9)
    assert fast.finished == pytest.approx([request.ended_at for request in slow.all], rel=1e-9)


@given(jobs(), engines(), st.sampled_from(SIMPLE), st.sampled_from((STEP, SPARSE, NARROW)))
def test_orders(job: Job, engine: SimulatedEngine, name: OrderName, step: StepTime) -> None:
    compare(job, job.order(name), engine, step)


@given(jobs(), engines(), st.sampled_from((0.0, 0.5, 0.99, 1.0)), st.booleans())
def test_blends(job: Job, engine: SimulatedEngine, keep: float, scattered: bool) -> None:
    compare(job, job.blend(engine.pool_tokens, keep, scattered=scattered), engine)


@given(jobs(), engines(), st.booleans(), st.data())
def test_wrong_expectations(job: Job, engine: SimulatedEngine, blended: bool, data: st.DataObject) -> None:
    count = len(job.outputs)
    believed = np.array(data.draw(st.lists(st.integers(0, 20), min_size=count, max_size=count)), dtype=np.int64)
    compare(job, job.blend(engine.pool_tokens) if blended else job.order(OrderName.GIVEN), engine, expected=believed)


@given(jobs(), engines(), st.booleans(), st.data())
def test_sglangs_own_admission(job: Job, engine: SimulatedEngine, blended: bool, data: st.DataObject) -> None:
    count = len(job.outputs)
    more = data.draw(st.lists(st.integers(0, 30), min_size=count, max_size=count))
    fixed = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    limits = np.where(fixed, job.outputs, job.outputs + np.array(more, dtype=np.int64))
    own = replace(engine, reserve=max(engine.reserve, 0.0))
    fed = job.blend(engine.pool_tokens) if blended else job.order(OrderName.GIVEN)
    compare(job, fed, own, limits=limits, fixed=fixed)


def mixed_job(count: int, seed: int, most_choices: int = 1) -> Job:
    """Short answers behind shared prefixes, some long ones, in random order."""
    rng = np.random.default_rng(seed)
    heads = [rng.integers(0, 50, 60).tolist() for _ in range(5)]
    units, outputs = [], []
    for _ in range(count):
        kind = rng.integers(0, 10)
        if kind == 0:
            units.append(rng.integers(0, 50, 10).tolist())
            outputs.append(int(rng.integers(100, 200)))
        else:
            units.append(heads[rng.integers(0, 5)] + rng.integers(0, 50, rng.integers(1, 40)).tolist())
            outputs.append(int(rng.integers(1, 15)))
    choices = rng.integers(1, most_choices + 1, count).tolist()
    return job_of(units, outputs, choices)


# Every mode, both evictions, with and without the gate, both reserves: each with an order and both blends, paced too.
@pytest.mark.parametrize("overlap", Overlap)
@pytest.mark.parametrize("eviction", Eviction)
@pytest.mark.parametrize("gate", [False, True])
@pytest.mark.parametrize("reserve", [EXACT, 0.3])
def test_every_way_of_scheduling(overlap: Overlap, eviction: Eviction, gate: bool, reserve: float) -> None:
    job = mixed_job(50, seed=5, most_choices=3)
    engine = SimulatedEngine(700, overlap, ConstantBudget(40), gate=gate, reserve=reserve, eviction=eviction)
    compare(job, job.order(OrderName.GIVEN), engine)
    for scattered in (False, True):
        made = job.blend(700, scattered=scattered)
        compare(job, made, engine)
        compare(job, made, replace(engine, paced=True))
        compare(job, made, replace(engine, shared_reads=20, drafts=Drafts(3, 0.6, rows=12)))
        compare(job, made, replace(engine, host=HostCache(200, 1e-4)))
    for drained in (0.5, 0.9):
        compare(job, made, replace(engine, budget=TurnsBudget(40, drained)))
    if overlap is not Overlap.EXCLUSIVE:
        compare(job, made, replace(engine, budget=CrossoverBudget(40, 60, 0.1, 4.0, 1.25, 0.2)), NARROW)
        compare(job, made, replace(engine, budget=AdaptiveBudget(8, 100, 0.7, 4.0, 1.25, 0.2)))


@pytest.mark.parametrize("overlap", Overlap)
@pytest.mark.parametrize("paced", [False, True])
def test_a_larger_job_blended(overlap: Overlap, paced: bool) -> None:
    job = mixed_job(200, seed=1)
    engine = SimulatedEngine(pool_tokens=1500, overlap=overlap, budget=ConstantBudget(48), paced=paced)
    compare(job, job.blend(1500), engine)


def test_a_larger_job_on_the_engine_as_it_comes() -> None:
    job = mixed_job(200, seed=2)
    engine = SimulatedEngine(1000, Overlap.MIXED, ConstantBudget(64), gate=False, reserve=0.2, eviction=Eviction.LRU)
    for name in SIMPLE:
        compare(job, job.order(name), engine)


def test_a_larger_job_with_an_adaptive_budget() -> None:
    job = mixed_job(150, seed=3)
    budget = AdaptiveBudget(16, 200, 1.5, 4.0, 1.25, 0.2)
    for reserve in (EXACT, 0.5):
        compare(job, job.blend(1500), SimulatedEngine(1500, Overlap.PDMUX, budget, reserve=reserve))


def test_exact_look_ahead_with_wrong_lengths() -> None:
    job = mixed_job(120, seed=4)
    engine = SimulatedEngine(900, Overlap.MIXED, ConstantBudget(48))
    compare(job, job.blend(900), engine, expected=np.maximum(job.outputs // 3, 1))
    compare(job, job.order(OrderName.GIVEN), replace(engine, gate=False), expected=job.outputs * 2)


def test_a_retraction_lets_a_chunk_go_on() -> None:
    # Four decoding rows leave nothing of the budget of 3 for the third prompt's second token; two of them do.
    job = job_of([[0], [1], [2, 2]], outputs=[5, 5, 0], choices=[2, 2, 1])
    engine = SimulatedEngine(12, Overlap.MIXED, ConstantBudget(3), gate=False, reserve=0.0, eviction=Eviction.LRU)
    for overlap in (Overlap.MIXED, Overlap.PDMUX):
        compare(job, job.order(OrderName.GIVEN), replace(engine, overlap=overlap))


def test_a_budget_that_grows_with_the_context_lets_a_chunk_go_on() -> None:
    job = job_of([[0], [1, 1, 1]], outputs=[30, 2], choices=[3, 1])
    budget = AdaptiveBudget(3, 20, ratio=0.1, weight_tokens=4.0, row_tokens=1.25, cached_tokens=0.2)
    compare(job, job.order(OrderName.GIVEN), SimulatedEngine(200, Overlap.MIXED, budget))


def test_requests_that_end_together_with_as_many_tokens_in_other_rows() -> None:
    # The second ends sooner than expected. What is then left is the end of the first, two rows, not one.
    job = job_of([[0], [1, 1], [2], [3]], outputs=[2, 1, 2, 4], choices=[2, 1, 1, 1])
    engine = SimulatedEngine(7, Overlap.MIXED, ConstantBudget(7), gate=False)
    compare(job, job.order(OrderName.GIVEN), engine, expected=np.array([2, 2, 2, 5]))
