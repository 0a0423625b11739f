"""A part of a job by whole units, and its orders; and the sort that orders them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from blendrun.blend.base import Blend, Order
from blendrun.blend.orders import simple_order
from blendrun.blend.portion import Portion
from blendrun.blend.stable import stable_order
from blendrun.names import OrderName
from tests.blend.jobs_of_lengths import Small, small_job


def documents(count: int, questions: int) -> Small:
    units = [[1000 + document] * 40 + [question] for document in range(count) for question in range(questions)]
    rng = np.random.default_rng(0)
    return small_job(units, rng.integers(1, 200, len(units)).tolist())


def test_a_part_has_whole_documents_and_all_orders() -> None:
    job = documents(400, 5)
    made = job.blend(keep=0.999)
    outputs = job.lengths.mean.astype(np.int64)
    portion = Portion.like_whole(made, job.prompts, outputs, 500)
    assert portion is not None
    numbers = portion.numbers
    assert 450 <= len(numbers) <= 550
    _, each = np.unique(numbers // 5, return_counts=True)
    assert (each == 5).all()
    place = {number: place for place, number in enumerate(numbers.tolist())}
    for name in (OrderName.GIVEN, OrderName.SORTED, OrderName.LOF):
        whole = simple_order(name, job.prompts, job.tree, job.lengths)
        part = portion.of(whole)
        assert isinstance(part, Order)
        assert part.prompt.tolist() == [place[number] for number in whole.prompt.tolist() if number in place]
    part = portion.of(made)
    assert isinstance(part, Blend)
    kept = np.isin(made.row_prompt, numbers)
    assert numbers[part.row_prompt].tolist() == made.row_prompt[kept].tolist()
    for here, there in ((part.row.unit, made.row.unit), (part.row.held.memory, made.row.held.memory)):
        np.testing.assert_array_equal(here, there[kept])
    assert len(part.order) == len(part.row.unit) == len(part.row.keep_left) == len(numbers)


def test_no_part_is_like_a_job_of_one_unit_or_of_few_unlike_ones() -> None:
    one = small_job([[7] * 50 + [number] for number in range(100)], [5] * 100)
    assert Portion.like_whole(one.blend(keep=1.0), one.prompts, np.full(100, 5), 20) is None
    unlike = small_job([[number] for number in range(100)], [1] * 99 + [10_000])
    outputs = unlike.lengths.mean.astype(np.int64)
    assert Portion.like_whole(unlike.blend(), unlike.prompts, outputs, 20) is None


# The last three differ by less than there is room for beside a place.
NEAR = (1.0, 1.0 + 2**-52, 1.0 + 2**-51)


@given(st.lists(st.sampled_from([0.0, -0.0, -1.0, 2.5, np.inf, -np.inf, 1e-300, -5e-324, *NEAR])))
def test_equal_keys_stay_as_they_stand(keys: list[float]) -> None:
    key = np.array(keys, dtype=np.float64)
    np.testing.assert_array_equal(stable_order(key), np.argsort(key, kind="stable"))
    apart = np.random.default_rng(len(keys)).random(len(keys))
    np.testing.assert_array_equal(stable_order(apart), np.argsort(apart, kind="stable"))
