"""Parts: every prompt in one, both kinds of work in each, groups whole where they may be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blendrun.blend.partition import BALANCE, Partition, measure, partition
from blendrun.errors import UsageError
from blendrun.tree.build import build_tree
from blendrun.tree.restrict import restrict
from tests.blend.jobs_of_lengths import Small, small_job, small_jobs


def check(job: Small, cut: Partition) -> None:
    """What it says of itself is so, found out with the trees of the parts alone."""
    prompts = [cut.prompts(number) for number in range(len(cut))]
    assert sorted(np.concatenate(prompts).tolist()) == list(range(len(job.prompts)))
    trees = [restrict(job.tree, each) for each in prompts]
    if job.tree.shared_tokens:
        kept = sum(tree.shared_tokens for tree in trees) / job.tree.shared_tokens
        assert cut.kept_sharing == pytest.approx(kept)
    assert cut.compute.sum() == pytest.approx(1)
    assert cut.flops >= job.demand.flops.sum() * (1 - 1e-12)


@given(small_jobs(), st.integers(1, 9))
def test_every_prompt_is_in_one_part(job: Small, parts: int) -> None:
    check(job, partition(job.tree, job.demand, parts))


def opposite_ends(groups: int = 60, each: int = 40) -> Small:
    """Compute-heavy groups at one end of the tree, memory-heavy ones at the other: no cut in two has both."""
    rng = np.random.default_rng(1)
    units, outputs = [], []
    for group in range(groups):
        heavy = group < groups // 2
        head = [group] * 200
        for number in range(each):
            units.append([*head, 1000 + number, *rng.integers(0, 9, 300 if heavy else 20).tolist()])
            outputs.append(2 if heavy else 300)
    return small_job(units, outputs)


@pytest.mark.parametrize("parts", [2, 3, 4, 8, 16])
def test_both_kinds_of_work_are_equal_and_groups_stay_whole(parts: int) -> None:
    job = opposite_ends()
    cut = partition(job.tree, job.demand, parts)
    check(job, cut)
    assert max(cut.imbalance()) <= BALANCE
    # A cut costs a path of 200 tokens at most, and there are two for each part but the last.
    lost = (1 - cut.kept_sharing) * job.tree.shared_tokens
    assert lost <= 2 * (parts - 1) * 200
    assert cut.kept_sharing > 0.97


def test_cuts_are_at_the_borders_of_groups_where_balance_allows() -> None:
    job = opposite_ends(groups=64, each=2)
    cut = partition(job.tree, job.demand, 4)
    assert cut.kept_sharing == 1
    groups = np.arange(len(job.prompts)) // 2
    for group in range(64):
        assert len(set(cut.part[groups == group].tolist())) == 1


def test_work_that_is_all_of_one_kind() -> None:
    job = small_job([[number, *range(50)] for number in range(400)], [0] * 400)
    cut = partition(job.tree, job.demand, 4)
    check(job, cut)
    assert cut.imbalance()[0] <= BALANCE


def test_unequal_shares() -> None:
    job = opposite_ends()
    shares = (3.0, 1.0, 1.0, 0.25)
    cut = partition(job.tree, job.demand, 4, shares=shares)
    check(job, cut)
    assert max(cut.imbalance(shares)) <= BALANCE
    assert cut.compute[0] == pytest.approx(3 / 5.25, rel=BALANCE)


def test_more_parts_than_are_cut_one_by_one() -> None:
    job = opposite_ends(groups=80, each=50)
    cut = partition(job.tree, job.demand, 100)
    check(job, cut)
    assert max(cut.imbalance()) < 0.2
    assert cut.kept_sharing > 0.9


def test_the_same_job_is_cut_the_same() -> None:
    job = opposite_ends()
    first, second = (partition(job.tree, job.demand, 8).part for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_a_division_by_hand_is_measured() -> None:
    job = small_job([[7, 7, 1], [7, 7, 2], [8, 8, 1], [8, 8, 2]], [5] * 4)
    whole, torn = (
        measure(job.tree, job.demand, np.array(part, dtype=np.int32), 2) for part in ([0, 0, 1, 1], [0, 1] * 2)
    )
    assert (whole.kept_sharing, torn.kept_sharing) == (1.0, 0.0)
    assert torn.flops > whole.flops == pytest.approx(job.demand.flops.sum())
    assert whole.imbalance() == pytest.approx((0, 0))


@pytest.mark.parametrize(("parts", "shares"), [(0, None), (2, (1.0, 0.0)), (1, (-1.0,))])
def test_no_parts_and_empty_shares_are_refused(parts: int, shares: tuple[float, ...] | None) -> None:
    job = small_job([[1], [2]], [1, 1])
    with pytest.raises(UsageError):
        partition(job.tree, job.demand, parts, shares=shares)


def test_of_nothing_there_is_nothing() -> None:
    job = small_job([], [])
    assert len(build_tree(job.prompts)) == 1
    cut = partition(job.tree, job.demand, 3)
    assert len(cut.part) == 0
    compute, memory = cut.imbalance()
    assert compute == pytest.approx(1)
    assert memory == 0.0
