"""Feeders: every wanted prompt once, sides by what is in the pool, another plan in the middle."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from blendrun.blend.base import LEFT, RIGHT, Blend, Order
from blendrun.blend.orders import simple_order
from blendrun.lengths.base import Lengths
from blendrun.names import OrderName
from blendrun.planner.feeder import PlanFeeder, QueuedRequest, RowFeeder
from tests.blend.jobs_of_lengths import Small, small_job, small_jobs

POOL = 20_000


def feeder(job: Small, plan: Order | Blend | None = None, **fields: object) -> PlanFeeder:
    wanted = fields.pop("wanted", np.ones(len(job.prompts), dtype=np.bool_))
    plan = job.blend(pool_tokens=POOL) if plan is None else plan
    return PlanFeeder(job.prompts, job.tree, job.lengths, plan, wanted=wanted, pool_tokens=POOL, **fields)  # type: ignore[arg-type]


def take_all(source: PlanFeeder) -> list[QueuedRequest]:
    found = []
    while (fed := source.take()) is not None:
        found.append(fed)
    return found


def two_kinds(count: int) -> Small:
    """Half are long prompts with short answers, half the reverse."""
    units = [[1000 + place] * (400 if place % 2 else 10) for place in range(count)]
    return small_job(units, [2 if place % 2 else 1500 for place in range(count)])


@given(small_jobs(), st.data())
def test_every_wanted_prompt_comes_once_whatever_happens_meanwhile(job: Small, data: st.DataObject) -> None:
    count = len(job.prompts)
    wanted = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)), dtype=np.bool_)
    sample = np.array(data.draw(st.lists(st.integers(0, count - 1), max_size=4)), dtype=np.int64)
    plans: Sequence[Order | Blend] = [
        job.blend(pool_tokens=POOL),
        simple_order(OrderName.SORTED, job.prompts, job.tree, job.lengths),
    ]
    source = feeder(job, data.draw(st.sampled_from(plans)), wanted=wanted, sample=sample)
    found: list[QueuedRequest] = []
    running: list[QueuedRequest] = []
    while (fed := source.take()) is not None:
        found.append(fed)
        running.append(fed)
        if data.draw(st.booleans()):
            source.ended(running.pop(data.draw(st.integers(0, len(running) - 1))))
        if data.draw(st.integers(0, 5)) == 0:
            source.replan(job.lengths, data.draw(st.sampled_from(plans)))
    assert sorted(fed.prompt for fed in found) == np.flatnonzero(wanted).tolist()
    assert source.unfed == 0


def test_the_memory_heavy_end_fills_its_part_of_the_pool_before_the_other_comes() -> None:
    job = two_kinds(200)
    source = feeder(job)
    running: list[QueuedRequest] = []
    held = 0.0
    while not running or running[-1].side == RIGHT:
        fed = source.take()
        assert fed is not None
        running.append(fed)
        held += int(job.prompts.prompt_tokens[fed.prompt]) + float(job.lengths.mean[fed.prompt]) / 2
    # What is dense in compute is so short in the pool that its part is tiny.
    assert 0.9 * POOL < held < 1.1 * POOL
    # One of the right side has ended: its place goes to the right side again.
    source.ended(running[0])
    fed = source.take()
    assert fed is not None
    assert fed.side == RIGHT


def test_a_side_whose_requests_do_not_end_waits_for_the_other() -> None:
    source = feeder(two_kinds(200))
    held = {LEFT: 0, RIGHT: 0}
    for _ in range(60):
        fed = source.take()
        assert fed is not None
        held[fed.side] += 1
        if fed.side == LEFT:
            source.ended(fed)
    # The right side holds its part of the pool and no more; the left went on.
    assert held[LEFT] > held[RIGHT]


def test_the_tail_is_fed_longest_first() -> None:
    job = two_kinds(12)
    outputs = [int(job.lengths.mean[fed.prompt]) for fed in take_all(feeder(job))]
    assert outputs == sorted(outputs, reverse=True)


def test_samples_come_first_and_rows_without_a_prompt_last() -> None:
    source = feeder(two_kinds(40), unplanned=np.array([77, 78]), sample=np.array([5, 20]))
    queue = take_all(source)
    assert [fed.prompt for fed in queue[:2]] == [5, 20]
    assert [fed.row for fed in queue[-2:]] == [77, 78]
    assert [fed.prompt for fed in queue[-3:]].count(-1) == 2
    assert [fed.index for fed in queue] == list(range(len(queue)))


def test_a_new_plan_expects_what_it_says() -> None:
    job = two_kinds(40)
    source = feeder(job)
    first = source.take()
    assert first is not None
    tenfold = Lengths(job.lengths.mean * 10, job.lengths.square * 100, job.lengths.bound * 10, job.lengths.source)
    source.replan(tenfold, simple_order(OrderName.LOF, job.prompts, job.tree, tenfold))
    second = source.take()
    assert second is not None
    assert second.output == round(10 * float(job.lengths.mean[second.prompt]))


def test_rows_come_as_they_stand() -> None:
    rows: NDArray[np.int64] = np.array([4, 2, 9])
    source = RowFeeder(rows)
    found = [source.take() for _ in range(3)]
    assert [fed.row for fed in found if fed] == [4, 2, 9]
    assert source.take() is None


@settings(suppress_health_check=[HealthCheck.large_base_example])
@given(small_jobs(), st.integers(0, 1 << 32))
def test_what_is_given_up_comes_from_the_other_feeder_and_from_no_other(job: Small, seed: int) -> None:
    # Not drawn one by one: that took most of the time.
    chance = random.Random(seed)
    plans: Sequence[Order | Blend] = [
        job.blend(pool_tokens=POOL),
        simple_order(OrderName.SORTED, job.prompts, job.tree, job.lengths),
    ]
    sources = [feeder(job, chance.choice(plans))]
    found: list[int] = []
    while any(source.unfed for source in sources):
        source = chance.choice([each for each in sources if each.unfed])
        if chance.randrange(4) == 0:
            rows = set(source.rows.tolist())
            given = source.split_off()
            assert (given is None) <= (len(rows) < 4)
            if given is not None:
                assert len(given.rows) > 0
                assert set(given.rows.tolist()) | set(source.rows.tolist()) == rows
                assert not set(given.rows.tolist()) & set(source.rows.tolist())
                sources.append(given)
        elif (fed := source.take()) is not None:
            found.append(fed.prompt)
            if chance.randrange(2):
                source.ended(fed)
        if chance.randrange(6) == 0:
            sources[0].replan(job.lengths, plans[0])
    assert sorted(found) == list(range(len(job.prompts)))


def test_whole_groups_are_given_up_and_come_side_by_side() -> None:
    job = small_job([[group] * 50 + [number] for group in range(40) for number in range(10)], [5] * 400)
    source = feeder(job)
    given = source.split_off()
    assert given is not None
    groups = [fed.prompt // 10 for fed in take_all(given)]
    assert 150 <= len(groups) <= 250
    # All of a group, one behind the other.
    assert groups == [group for first in dict.fromkeys(groups) for group in [first] * 10]


@pytest.mark.parametrize("heavy", range(4))
def test_something_is_given_up_although_one_prompt_has_most_of_the_tokens(heavy: int) -> None:
    job = small_job([[number] * (1000 if number == heavy else 1) for number in range(4)], [0] * 4)
    for source in (feeder(job), feeder(job, simple_order(OrderName.SORTED, job.prompts, job.tree, job.lengths))):
        given = source.split_off()
        assert given is not None and len(given.rows)


def test_rows_are_given_up_from_the_end() -> None:
    source = RowFeeder(np.arange(10, 20))
    source.take()
    given = source.split_off()
    assert given is not None
    assert (source.rows.tolist(), given.rows.tolist()) == ([11, 12, 13, 14, 15], [16, 17, 18, 19])
    assert RowFeeder(np.arange(1)).split_off() is None
