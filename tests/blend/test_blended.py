"""The blended order: a permutation, the same every time, with the sharing it promises, mixed as the job is."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from blendrun.blend.base import LEFT, RIGHT
from blendrun.blend.orders import AUTOMATIC, ORDERS, needs_prompts, simple_order
from blendrun.blend.scan import dual_scan, feed_tail_longest_first
from blendrun.blend.split import Splitter, UnitRow
from blendrun.names import OrderName
from blendrun.tree.hits import path_hits
from tests.blend.jobs_of_lengths import Small, small_job, small_jobs


@given(small_jobs(), st.sampled_from([100.0, 3000.0, 1e6]), st.booleans())
def test_every_prompt_is_fed_once_and_two_blends_are_the_same(job: Small, pool: float, scattered: bool) -> None:
    made, again = (job.blend(pool_tokens=pool, scattered=scattered) for _ in range(2))
    assert sorted(made.order.prompt.tolist()) == list(range(len(job.prompts)))
    assert sorted(made.row_prompt.tolist()) == list(range(len(job.prompts)))
    for one, other in ((made.order.prompt, again.order.prompt), (made.order.side, again.order.side)):
        np.testing.assert_array_equal(one, other)
    assert set(made.order.side.tolist()) <= {LEFT, RIGHT}
    assert (made.left_share >= 0).all() and (made.left_share <= 1).all()


def units_of(job: Small, keep: float, running: NDArray[np.float64], scattered: bool) -> UnitRow:
    compute, memory = job.demand.flops / job.machine.flops, job.demand.kv_bytes / job.machine.bandwidth
    return Splitter(job.tree, compute, memory, running).arrange(keep=keep, scattered=scattered)


def hits_beside(job: Small, row: UnitRow, always_resident: set[int]) -> int:
    """Prompt tokens that a cache of the last prompt and of all nodes in `ever` saves."""
    hits, last, seen = 0, set[int](), set[int]()
    for node in job.tree.leaf[row.leaf].tolist():
        path = set[int]()
        while node > 0:
            path.add(node)
            node = int(job.tree.parent[node])
        hits += sum(int(job.tree.segment[node]) for node in path & (last | seen))
        last, seen = path, seen | (path & always_resident)
    return hits


@given(small_jobs(), st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0]), st.booleans())
def test_neighbours_of_the_row_keep_the_sharing_asked_for(job: Small, keep: float, scattered: bool) -> None:
    row = units_of(job, keep, np.zeros(len(job.tree)), scattered)
    assert sorted(row.leaf.tolist()) == list(range(len(job.prompts)))
    kept = int(path_hits(job.tree, job.tree.prompt[row.leaf]).sum(dtype=np.int64))
    shared = job.tree.shared_tokens
    assert kept >= keep * shared - 1e-9
    assert row.kept == pytest.approx(kept / shared if shared else 1.0)


@given(small_jobs(), st.sampled_from([0.0, 0.9, 0.99, 1.0]), st.booleans())
def test_what_is_in_use_all_the_time_is_kept_in_any_order(job: Small, keep: float, scattered: bool) -> None:
    tree, shared = job.tree, job.tree.shared_tokens
    running = (tree.leaf_end - tree.leaf_begin).astype(np.float64)
    row = units_of(job, keep, running, scattered)
    kept = hits_beside(job, row, set(np.flatnonzero(running >= 4).tolist()))
    assert kept >= keep * shared - 1e-9
    assert row.kept == pytest.approx(kept / shared if shared else 1.0)


def test_a_template_that_all_begin_with_holds_no_unit_together() -> None:
    units = [[9] * 50 + [place] * (300 if place % 2 else 5) for place in range(200)]
    job = small_job(units, [2 if place % 2 else 500 for place in range(200)])
    # A pool of which the template would fill a good part, and in which many run at once.
    made = job.blend(pool_tokens=5_000, keep=1.0)
    assert made.units >= 200
    assert made.kept_sharing == 1.0
    sides = [int(number) % 2 for number in made.row_prompt]
    assert sides == sorted(sides, reverse=True)


def test_a_scattered_row_is_the_denser_half_and_the_rest_each_by_chance() -> None:
    outputs = [10 + place for place in range(100)] + [1000 + place for place in range(100)]
    job = small_job([[place] * 100 for place in range(200)], outputs)
    row = job.blend(scattered=True).row_prompt.tolist()
    dense = row[: sum(number < 100 for number in row)]
    assert set(dense) == set(range(100))
    assert dense != sorted(dense)
    assert job.blend().row_prompt.tolist()[:100] == list(range(100))


def test_chance_leans_towards_early_long_answers() -> None:
    outputs = [10 + place for place in range(100)] + [1000 + place for place in range(100)]
    job = small_job([[place] * 100 for place in range(200)], outputs)
    row = job.blend(scattered=True).row_prompt
    memory_heavy = row[row >= 100]
    # Read from its end: the longest quarter comes well before the shortest.
    place = np.argsort(memory_heavy[::-1])
    assert place[75:].mean() + 10 < place[:25].mean()


def test_the_less_sharing_must_be_kept_the_finer_the_cut() -> None:
    # Groups whose members differ in density: only a cut through a group puts them where they belong.
    units = [[group] * 40 + [number] for group in range(8) for number in range(6)]
    job = small_job(units, [1 + 400 * (number % 2) for number in range(48)])
    never = np.zeros(len(job.tree))
    pieces = [len(units_of(job, keep, never, False).first) for keep in (1.0, 0.5, 0.0)]
    assert pieces == sorted(pieces) and pieces[0] < pieces[-1]


@given(small_jobs(), st.integers(20, 2_000))
def test_the_last_pool_full_is_fed_longest_first_and_no_more_than_that(job: Small, pool: int) -> None:
    row = job.blend(pool_tokens=pool).row
    scan = dual_scan(row, pool)
    fed = feed_tail_longest_first(scan, row, pool)
    size, steps = row.size, row.held.reach
    count = 0
    while count < len(scan.place) and size[scan.place[len(scan.place) - count - 1 :]].sum() <= pool:
        count += 1
    begin = len(scan.place) - count
    assert fed.place[:begin].tolist() == scan.place[:begin].tolist()
    assert sorted(fed.place[begin:].tolist()) == sorted(scan.place[begin:].tolist())
    assert (np.diff(steps[fed.place[begin:]]) <= 0).all()


@given(small_jobs())
def test_a_finer_cut_never_keeps_more_sharing(job: Small) -> None:
    assert job.blend(keep=1.0).kept_sharing >= job.blend(keep=0.5).kept_sharing - 1e-9


def test_units_stand_from_compute_heavy_to_memory_heavy() -> None:
    # Ten documents with questions answered in a word, ten stories that go on and on.
    units = [[document] * 200 + [question] for document in range(10) for question in range(3)]
    units += [[100 + story] * 5 for story in range(10)]
    job = small_job(units, [2] * 30 + [2000] * 10)
    row = job.blend().row_prompt
    assert set(row[:30].tolist()) == set(range(30))
    assert set(row[30:].tolist()) == set(range(30, 40))


@pytest.mark.parametrize("scattered", [False, True])
def test_the_mix_fed_stays_near_the_mix_of_the_job(scattered: bool) -> None:
    units = [[document] * 500 for document in range(1000)] + [[5000 + story] * 20 for story in range(60)]
    job = small_job(units, [4] * 1000 + [400] * 60)
    made = job.blend(pool_tokens=4000, scattered=scattered)
    compute = job.demand.flops[job.tree.leaf][job.tree.position]
    memory = job.demand.kv_bytes[job.tree.leaf][job.tree.position]
    order = made.order.prompt
    whole = compute.sum() / memory.sum()
    # In fifths of the feed: file order has no memory work in its first fifth, and the sum of all is the whole.
    for part in np.array_split(order, 5):
        assert compute[part].sum() / memory[part].sum() == pytest.approx(whole, rel=0.35)


def test_when_nothing_is_decoded_the_row_is_fed_from_one_end() -> None:
    job = small_job([[place, 1, 2, 3] for place in range(20)], [0] * 20)
    made = job.blend()
    assert made.density == float("inf")
    assert sorted(made.order.prompt.tolist()) == list(range(20))


def test_one_request_is_an_order() -> None:
    made = small_job([[1, 2, 3]], [5]).blend(pool_tokens=1.0)
    assert made.order.prompt.tolist() == [0]


def test_equal_densities_stay_depth_first() -> None:
    job = small_job([[group] * 50 + [question] for question in range(4) for group in range(5)], [20] * 20)
    groups = [int(number) % 5 for number in job.blend().order.prompt]
    changes = sum(one != other for one, other in pairwise(groups))
    assert changes == 4


def test_the_last_pool_full_begins_with_the_longest_answers() -> None:
    units = [[place] * 10 for place in range(40)]
    outputs = [10 + place for place in range(40)]
    job = small_job(units, outputs)
    order = job.blend(pool_tokens=200).order.prompt
    tail = [outputs[number] for number in order[-4:]]
    assert tail == sorted(tail, reverse=True)


def test_simple_orders_are_what_they_say() -> None:
    job = small_job([[2, 1], [1, 5], [1, 4], [2, 0]], [3, 9, 9, 50])

    def of(name: OrderName) -> list[int]:
        order: list[int] = simple_order(name, job.prompts, job.tree, job.lengths).prompt.tolist()
        return order

    assert of(OrderName.GIVEN) == [0, 1, 2, 3]
    assert of(OrderName.SORTED) == [2, 1, 3, 0]
    assert of(OrderName.LOF) == [3, 2, 1, 0]
    assert sorted(of(OrderName.SHUFFLED)) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="blended needs the cost model"):
        of(OrderName.BLENDED)


def test_every_order_has_a_rule() -> None:
    assert ORDERS.keys() == set(OrderName)
    assert [name for name in OrderName if not needs_prompts(name)] == [OrderName.GIVEN, OrderName.SHUFFLED]
    assert AUTOMATIC == (OrderName.GIVEN, OrderName.SORTED, OrderName.LOF, OrderName.BLENDED), "simplest first"
