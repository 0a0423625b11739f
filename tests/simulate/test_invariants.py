"""What is true of every simulated run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blendrun.blend.budget import ConstantBudget
from blendrun.names import OrderName, Overlap
from blendrun.simulate.base import EXACT, Eviction, SimulatedEngine
from blendrun.simulate.kernel import BUCKETS
from blendrun.simulate.seconds import overlapped
from blendrun.simulate.simulator import RATES, SHARES, simulate
from tests.imports import loaded_by
from tests.simulate.reference import Reference
from tests.simulate.small_jobs import STEP, Job, engines, job_of, jobs

SIMPLE = (OrderName.GIVEN, OrderName.SHUFFLED, OrderName.SORTED, OrderName.LOF)


@given(jobs(), engines(), st.sampled_from(SIMPLE), st.booleans())
def test_work_is_conserved(job: Job, engine: SimulatedEngine, name: OrderName, blended: bool) -> None:
    fed = job.blend(engine.pool_tokens) if blended else job.order(name)
    outcome = simulate(job.tree, job.prompts, fed, job.outputs, STEP, engine)
    prompts, choices = int(job.prompts.prompt_tokens.sum()), job.rows
    assert outcome.prefill_tokens + outcome.hit_tokens == prompts + outcome.recomputed_tokens
    answered = int((choices * np.maximum(job.outputs - 1, 0)).sum())
    # A request that was sent back gets its next token from its second prefill.
    assert answered - int(choices.max()) * outcome.retractions <= outcome.decode_tokens <= answered
    assert outcome.hit_tokens <= job.tree.shared_tokens + outcome.recomputed_tokens + (
        prompts if outcome.retractions else 0
    )
    assert outcome.seconds >= outcome.bound_seconds * (1 - 1e-9)
    assert (outcome.finished > 0).all()
    assert outcome.finished.max() == pytest.approx(outcome.seconds)


@given(jobs(), engines(), st.booleans())
def test_the_timeline_sums_to_the_run(job: Job, engine: SimulatedEngine, blended: bool) -> None:
    fed = job.blend(engine.pool_tokens) if blended else job.order(OrderName.GIVEN)
    outcome = simulate(job.tree, job.prompts, fed, job.outputs, STEP, engine)
    line = outcome.timeline
    assert (line.steps > 0).all()
    assert line.steps.sum() == pytest.approx(outcome.steps)
    assert line.seconds.sum() == pytest.approx(outcome.seconds)
    assert line.compute.sum() == pytest.approx(outcome.compute_seconds)
    assert line.memory.sum() == pytest.approx(outcome.memory_seconds)
    assert line.prefill.sum() == pytest.approx(outcome.prefill_tokens)
    assert line.decode.sum() == pytest.approx(outcome.decode_tokens)


@given(jobs(), engines(), st.booleans())
def test_the_pool_holds_all_but_a_request_that_is_too_large(job: Job, engine: SimulatedEngine, blended: bool) -> None:
    fed = job.blend(engine.pool_tokens) if blended else job.order(OrderName.GIVEN)
    expected = job.outputs.tolist()
    slow = Reference(job.tree, job.prompts, fed, expected, expected, STEP, engine)
    while not slow.take_results():
        slow.one_step()
        assert slow.used() <= engine.pool_tokens or len(slow.running) == 1


@given(jobs(), st.sampled_from(SIMPLE), st.sampled_from(Overlap), st.sampled_from(Eviction))
def test_an_endless_pool_with_a_gate_finds_every_shared_prefix(
    job: Job, name: OrderName, overlap: Overlap, eviction: Eviction
) -> None:
    engine = SimulatedEngine(1_000_000, overlap, ConstantBudget(8), eviction=eviction)
    outcome = simulate(job.tree, job.prompts, job.order(name), job.outputs, STEP, engine)
    # The last token of a copy is computed again, and that is all that may be lost.
    assert job.tree.shared_tokens - len(job.prompts) <= outcome.hit_tokens <= job.tree.shared_tokens
    assert outcome.retractions == 0


def test_one_request() -> None:
    job = job_of([[1, 2, 3, 4, 5]], [4])
    engine = SimulatedEngine(100, Overlap.MIXED, ConstantBudget(3))
    outcome = simulate(job.tree, job.prompts, job.order(OrderName.GIVEN), job.outputs, STEP, engine)
    # Two chunks, then three decode steps: the first token comes with the second chunk.
    assert (outcome.steps, outcome.prefill_tokens, outcome.decode_tokens) == (5, 5, 3)
    prefill = [STEP.weights + STEP.prefill_square * 9 + STEP.request, STEP.weights + STEP.prefill_square * (25 - 9)]
    decode = [STEP.weights + STEP.kv_token * read + STEP.row for read in (6, 7, 8)]
    assert outcome.seconds == pytest.approx(sum(prefill) + sum(decode) + 5 * STEP.step)


def test_an_answer_of_one_token_or_none_takes_no_decode_step() -> None:
    for tokens in (0, 1):
        job = job_of([[1, 2]] * 3, [tokens] * 3)
        outcome = simulate(job.tree, job.prompts, job.order(OrderName.GIVEN), job.outputs, STEP, SimulatedEngine(100))
        assert (outcome.decode_tokens, outcome.memory_seconds) == (0, 0.0)


def test_equal_prompts_compute_their_last_token_each() -> None:
    job = job_of([[1, 2, 3, 4]] * 5, [2] * 5)
    outcome = simulate(job.tree, job.prompts, job.order(OrderName.GIVEN), job.outputs, STEP, SimulatedEngine(100))
    assert (outcome.prefill_tokens, outcome.hit_tokens) == (4 + 4, 4 * 3)


def test_a_chain_of_prompts_is_computed_once() -> None:
    job = job_of([list(range(length)) for length in range(1, 9)], [1] * 8)
    outcome = simulate(job.tree, job.prompts, job.order(OrderName.SORTED), job.outputs, STEP, SimulatedEngine(100))
    assert outcome.prefill_tokens == 8


def test_without_a_gate_siblings_compute_their_prefix_again() -> None:
    job = job_of([[7] * 20 + [number] for number in range(4)], [1] * 4)
    engine = SimulatedEngine(1000, Overlap.MIXED, ConstantBudget(1000))
    gated = simulate(job.tree, job.prompts, job.order(OrderName.GIVEN), job.outputs, STEP, engine)
    free = simulate(job.tree, job.prompts, job.order(OrderName.GIVEN), job.outputs, STEP, replace(engine, gate=False))
    assert (gated.hit_tokens, free.hit_tokens) == (60, 0)


def test_a_prefix_is_known_a_step_late_where_steps_are_built_before_their_results() -> None:
    # The second of two siblings comes in one step behind the first, which the budget fills.
    job = job_of([[1] * 40, [1] * 40], [3, 3])
    engine = SimulatedEngine(1000, Overlap.EXCLUSIVE, ConstantBudget(40), gate=False)
    hits = [
        simulate(job.tree, job.prompts, job.order(OrderName.GIVEN), job.outputs, STEP, each).hit_tokens
        for each in (engine, replace(engine, late=False))
    ]
    assert hits == [0, 39]
    # With a gate it waits for the prefix, and the scheduler for a result, which is no step.
    gated = simulate(job.tree, job.prompts, job.order(OrderName.GIVEN), job.outputs, STEP, replace(engine, gate=True))
    assert gated.hit_tokens == 39


def test_a_sibling_finds_what_there_is_of_a_prompt_that_is_half_in() -> None:
    job = job_of([[1] * 40, [1] * 40], [3, 3])
    engine = SimulatedEngine(1000, Overlap.EXCLUSIVE, ConstantBudget(30), gate=False)
    assert simulate(job.tree, job.prompts, job.order(OrderName.GIVEN), job.outputs, STEP, engine).hit_tokens == 30


def test_what_stands_behind_a_gated_request_waits_too() -> None:
    job = job_of([[7] * 20 + [0], [7] * 20 + [1], [9] * 5], [1, 1, 1])
    engine = SimulatedEngine(1000, Overlap.MIXED, ConstantBudget(1000))
    for fed in (job.order(OrderName.GIVEN), job.blend(1000)):
        gated = simulate(job.tree, job.prompts, fed, job.outputs, STEP, engine)
        free = simulate(job.tree, job.prompts, fed, job.outputs, STEP, replace(engine, gate=False))
        assert (gated.steps, free.steps) == (2, 1)
    first, sibling, other = simulate(
        job.tree, job.prompts, job.order(OrderName.GIVEN), job.outputs, STEP, engine
    ).finished
    assert first < sibling == other


@pytest.mark.parametrize(("late", "common", "steps"), [(False, 20, 2), (True, 20, 2), (False, 4, 1)])
def test_the_items_of_a_score_wait_for_its_first(late: bool, common: int, steps: int) -> None:
    """Five lines of a query of 20 tokens and four items of 2; what begins alike for less than it is worth waits not."""
    units = [[line] * 20 + list(range(8)) for line in range(5)]
    job = job_of(units, [1] * 5, parts=[(4, 22, common)] * 5)
    engine = SimulatedEngine(1000, Overlap.EXCLUSIVE, ConstantBudget(1000), gate_tokens=8, late=late)
    found = simulate(job.tree, job.prompts, job.order(OrderName.GIVEN), job.outputs, STEP, engine)
    assert (found.steps, found.prefill_tokens, found.hit_tokens) == (steps, 5 * 28, 0)
    # Each of the 20 requests costs what a request costs.
    assert found.seconds - 20 * STEP.request >= steps * STEP.step


def test_a_prompt_longer_than_the_pool_runs_alone() -> None:
    job = job_of([[1, 2], [3] * 30, [4, 5]], [5, 5, 5])
    engine = SimulatedEngine(20, Overlap.MIXED, ConstantBudget(8))
    outcome = simulate(job.tree, job.prompts, job.order(OrderName.GIVEN), job.outputs, STEP, engine)
    first, long, last = outcome.finished
    assert first < long < last


def test_exclusive_mode_decodes_only_when_nothing_can_be_prefilled() -> None:
    job = job_of([[1], [2] * 10], [5, 1])
    engine = SimulatedEngine(100, Overlap.EXCLUSIVE, ConstantBudget(1))
    outcome = simulate(job.tree, job.prompts, job.order(OrderName.GIVEN), job.outputs, STEP, engine)
    assert outcome.finished[1] < outcome.finished[0]
    assert (outcome.steps, outcome.prefill_tokens) == (1 + 10 + 4, 11)


def test_a_pool_that_runs_full_sends_requests_back() -> None:
    job = job_of([[number] * 4 for number in range(4)], [20] * 4)
    engine = SimulatedEngine(40, Overlap.MIXED, ConstantBudget(50), reserve=0.0)
    exact = replace(engine, reserve=EXACT)
    hasty = simulate(job.tree, job.prompts, job.order(OrderName.GIVEN), job.outputs, STEP, engine)
    careful = simulate(job.tree, job.prompts, job.order(OrderName.GIVEN), job.outputs, STEP, exact)
    assert hasty.retractions > 0
    assert hasty.recomputed_tokens > 0
    assert careful.retractions == careful.recomputed_tokens == 0


def test_long_runs_join_the_buckets_of_their_timeline() -> None:
    job = job_of([[1, 2]], [100_000])
    outcome = simulate(job.tree, job.prompts, job.order(OrderName.GIVEN), job.outputs, STEP, SimulatedEngine(200_000))
    steps = outcome.timeline.steps
    assert BUCKETS / 2 <= len(steps) <= BUCKETS
    assert outcome.steps == 100_000
    # Steps alike are taken together, and stand in every bucket that they reach into.
    assert steps[:-1] == pytest.approx(256)


def test_side_by_side_is_between_perfect_overlap_and_none() -> None:
    for compute, memory in ((1.0, 1.0), (2.0, 0.5), (0.3, 3.0), (1.0, 0.0), (0.0, 1.0)):
        seconds = overlapped(compute, memory, SHARES, RATES)
        assert max(compute, memory) <= seconds <= compute + memory
    # 0.4 of the device given up for 0.8 of the full rate: 1/0.8 s for the reads, and 1 - 0.6/0.8 s of arithmetic left.
    assert overlapped(1.0, 1.0, SHARES, RATES) == pytest.approx(1.25 + 0.25)


@pytest.mark.parametrize("scattered", [False, True])
def test_a_blend_that_fits_the_pool_is_fed_longest_first(scattered: bool) -> None:
    job = job_of([[place] * (1 + place % 5) for place in range(20)], [(7 * place) % 40 + 1 for place in range(20)])
    engine = SimulatedEngine(10_000, Overlap.MIXED, ConstantBudget(4), paced=True)
    blended = simulate(
        job.tree, job.prompts, job.blend(engine.pool_tokens, scattered=scattered), job.outputs, STEP, engine
    )
    # The tail has no pace.
    plain = replace(engine, paced=False)
    longest_first = simulate(job.tree, job.prompts, job.order(OrderName.LOF), job.outputs, STEP, plain)
    assert blended.seconds == pytest.approx(longest_first.seconds)
    # In a pool that holds half of them it is not all tail.
    tight = replace(engine, pool_tokens=150)
    found = simulate(job.tree, job.prompts, job.blend(150, scattered=scattered), job.outputs, STEP, tight)
    assert found.seconds > blended.seconds


def test_importing_the_simulator_imports_no_engine_and_no_compiler() -> None:
    assert loaded_by("blendrun.simulate").isdisjoint({"numba", "torch", "sglang"})
