"""The icicle: every request below every level it reaches, nothing outside its parent."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from blendrun.report.schemas.icicle import IcicleNode, icicle
from tests.blend.jobs_of_lengths import Small, small_job, small_jobs


def drawn(job: Small, limit: int) -> tuple[IcicleNode, ...]:
    return icicle(job.tree, job.demand, job.machine, lambda number: f"id {number}", limit)


@given(small_jobs(), st.integers(0, 40))
def test_blocks_lie_side_by_side_inside_their_parents(job: Small, limit: int) -> None:
    nodes = drawn(job, limit)
    assert (nodes[0].level, nodes[0].begin, nodes[0].requests) == (0, 0, len(job.prompts))
    for above, below in ((level, level + 1) for level in range(max(node.level for node in nodes))):
        parents = [node for node in nodes if node.level == above and not node.merged]
        for child in (node for node in nodes if node.level == below):
            assert any(
                parent.begin <= child.begin and child.begin + child.requests <= parent.begin + parent.requests
                for parent in parents
            )
        spans = sorted((node.begin, node.begin + node.requests) for node in nodes if node.level == below)
        assert all(one[1] <= other[0] for one, other in itertools.pairwise(spans))


@given(small_jobs())
def test_with_room_for_all_the_whole_prompts_are_drawn(job: Small) -> None:
    nodes = drawn(job, 10_000)
    area = sum(node.requests * node.segment_tokens for node in nodes)
    assert round(area) == job.tree.prompt_tokens
    assert sum(node.saved_tokens for node in nodes) == job.tree.shared_tokens


def test_many_small_groups_are_one_block() -> None:
    units = [[group] * 20 + [group * 100 + each] for group in range(1, 301) for each in range(3)]
    job = small_job(units, [8] * len(units))
    root, *rest = drawn(job, 10)
    [others] = [node for node in rest if node.level == 1 and node.merged]
    assert others.merged == 290
    assert others.requests == 870
    assert sum(node.requests for node in rest if node.level == 1) == root.requests == 900
