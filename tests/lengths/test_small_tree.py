"""The tests' own tree is a prefix tree."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.lengths.small_tree import make_tree


@given(st.lists(st.lists(st.integers(0, 2), max_size=5), max_size=12))
def test_ranges_nest_and_every_prompt_has_its_leaf(prompts: list[list[int]]) -> None:
    tree = make_tree(prompts)
    assert sorted(tree.prompt.tolist()) == list(range(len(prompts)))
    assert tree.depth[tree.leaf].tolist() == [len(prompts[number]) for number in tree.prompt]
    for node in range(1, len(tree)):
        above = tree.parent[node]
        assert above < node < tree.end[node] <= tree.end[above]
        assert tree.leaf_begin[above] <= tree.leaf_begin[node] < tree.leaf_end[node] <= tree.leaf_end[above]
        below = [prompts[number] for number in tree.prompt[tree.leaf_begin[node] : tree.leaf_end[node]]]
        assert len({tuple(prompt[: tree.depth[node]]) for prompt in below}) == 1
    assert (tree.shared_tokens + int(tree.segment.sum())) == sum(map(len, prompts))
