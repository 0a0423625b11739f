"""The tree is exact: its root-to-leaf paths are the prompts, and its arrays are those the planner relies on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blendrun.events import Event, Progress
from blendrun.tokens.base import Prompts
from blendrun.tree import sort as sorting
from blendrun.tree.base import PrefixTree
from blendrun.tree.build import build_tree, shared_tokens, strings, tree_of
from blendrun.tree.sort import Strings, sort_strings
from tests.tree.prompt_lists import common, paths, prompts_of, same_arrays, token_strings, unit_lists


@st.composite
def prompt_sets(draw: st.DrawFn) -> Prompts:
    """Text jobs and traces: one or several roots, whole or partial last blocks, prompts without units."""
    units = draw(unit_lists)
    unit_tokens = draw(st.sampled_from([1, 1, 4]))
    tokens = [len(each) * unit_tokens - (draw(st.integers(0, unit_tokens - 1)) if each else 0) for each in units]
    if unit_tokens > 1:
        tokens = [count or draw(st.integers(0, 9)) for count in tokens]
    keys = st.lists(st.sampled_from([7, 3]), min_size=len(units), max_size=len(units))
    root = draw(keys) if draw(st.booleans()) else None
    return prompts_of(units, unit_tokens=unit_tokens, prompt_tokens=tokens, root=root)


def check(tree: PrefixTree, prompts: Prompts) -> None:
    """What base.py promises of the arrays."""
    count, nodes = len(prompts), len(tree)
    assert tree.parent[0] == -1 and tree.start[0] == 0 and tree.depth[0] == 0 and tree.end[0] == nodes
    assert [tree.leaf_begin[0], tree.leaf_end[0]] == [0, count]
    assert sorted(tree.prompt.tolist()) == list(range(count))
    leaves = set(tree.leaf.tolist())
    assert len(leaves) == count
    for node in range(1, nodes):
        above = tree.parent[node]
        assert 0 <= above < node < tree.end[node] <= tree.end[above]
        assert tree.leaf_begin[above] <= tree.leaf_begin[node] < tree.leaf_end[node] <= tree.leaf_end[above]
        assert tree.start[node] == tree.depth[above] <= tree.depth[node]
        if node in leaves:
            assert tree.end[node] == node + 1 and tree.leaf_end[node] == tree.leaf_begin[node] + 1
        else:
            children = np.flatnonzero(tree.parent == node)
            assert len(children) >= 2 and tree.depth[node] > tree.start[node]
            assert [*tree.leaf_end[children][:-1]] == [*tree.leaf_begin[children][1:]]
            assert [*tree.end[children][:-1]] == [*children[1:]]
    assert tree.leaf.tolist() == sorted(leaves)
    assert tree.depth[tree.leaf].tolist() == prompts.prompt_tokens[tree.prompt].tolist()


@given(prompt_sets())
def test_root_to_leaf_paths_are_the_prompts(prompts: Prompts) -> None:
    tree = build_tree(prompts)
    check(tree, prompts)
    wanted = token_strings(prompts)
    assert paths(tree, wanted) == [wanted[number] for number in tree.prompt]
    for place in range(1, len(prompts)):
        assert tree.shared[place] == common(wanted[tree.prompt[place - 1]], wanted[tree.prompt[place]])


@given(prompt_sets())
def test_segments_are_the_distinct_prefixes_and_shared_is_what_an_infinite_cache_saves(prompts: Prompts) -> None:
    tree = build_tree(prompts)
    wanted = token_strings(prompts)
    distinct = {string[: length + 1] for string in wanted for length in range(len(string))}
    assert int(tree.segment.sum(dtype=np.int64)) == len(distinct)
    assert tree.prompt_tokens == sum(map(len, wanted))
    assert tree.shared_tokens == tree.prompt_tokens - len(distinct)


@given(prompt_sets())
def test_prompts_stand_in_lexicographic_order_copies_in_input_order(prompts: Prompts) -> None:
    tree = build_tree(prompts)
    first_of_root = {int(key): number for number, key in reversed(list(enumerate(prompts.root)))}

    def key(number: int) -> tuple[object, ...]:
        units = prompts.units[prompts.offsets[number] : prompts.offsets[number + 1]].tolist()
        tokens = int(prompts.prompt_tokens[number]) if units else 0
        return first_of_root[int(prompts.root[number])], units, tokens, number

    assert tree.prompt.tolist() == sorted(range(len(prompts)), key=key)


@given(prompt_sets(), st.integers(1, 6), st.integers(1, 9))
def test_threads_and_runs_do_not_change_the_tree(prompts: Prompts, threads: int, run: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sorting, "_RUN", run)
        perm, lcp = sort_strings(strings(prompts), threads=threads)
    tokens = prompts.prompt_tokens[perm]
    assert same_arrays(
        tree_of(perm, shared_tokens(tokens, lcp, prompts.unit_tokens), tokens),
        build_tree(prompts),
    )


@given(st.lists(st.tuples(st.integers(0, 70), st.lists(st.integers(0, 1), max_size=40)), max_size=16))
def test_long_prefixes_that_part_anywhere(parts: list[tuple[int, list[int]]]) -> None:
    base = np.random.default_rng(0).integers(0, 2, 70).tolist()
    prompts = prompts_of([base[:length] + rest for length, rest in parts])
    tree, wanted = build_tree(prompts), token_strings(prompts)
    assert [wanted[number] for number in tree.prompt] == sorted(wanted, key=lambda each: [unit for _, unit, _ in each])
    for place in range(1, len(prompts)):
        assert tree.shared[place] == common(wanted[tree.prompt[place - 1]], wanted[tree.prompt[place]])


@given(prompt_sets())
def test_sums_over_sub_trees(prompts: Prompts) -> None:
    tree = build_tree(prompts)
    own = np.zeros(len(tree))
    own[tree.leaf] = np.arange(1.0, len(prompts) + 1)
    sums = tree.subtree_sum(own)
    for node in range(len(tree)):
        assert sums[node] == own[tree.leaf[tree.leaf_begin[node] : tree.leaf_end[node]]].sum()


def test_no_prompts_and_one_prompt() -> None:
    assert build_tree(prompts_of([])).parent.tolist() == [-1]
    one = build_tree(prompts_of([[5, 6]]))
    assert (one.parent.tolist(), one.depth.tolist(), one.shared.tolist()) == ([-1, 0], [0, 2], [0])


def test_a_small_tree_array_by_array() -> None:
    tree = build_tree(prompts_of([[1, 2, 3], [9], [1, 2], [1, 2, 3]]))
    # root, (1 2), its end, (3), its ends twice, (9)
    assert tree.prompt.tolist() == [2, 0, 3, 1]
    assert tree.parent.tolist() == [-1, 0, 1, 1, 3, 3, 0]
    assert tree.depth.tolist() == [0, 2, 2, 3, 3, 3, 1]
    assert tree.start.tolist() == [0, 0, 2, 2, 3, 3, 0]
    assert tree.end.tolist() == [7, 6, 3, 6, 5, 6, 7]
    assert tree.leaf.tolist() == [2, 4, 5, 6]
    assert tree.shared.tolist() == [0, 2, 3, 0]


def test_roots_do_not_share() -> None:
    tree = build_tree(prompts_of([[1, 2], [1, 2], [1, 2]], root=[8, 5, 8]))
    assert tree.shared_tokens == 2
    assert tree.prompt.tolist() == [0, 2, 1]


def test_prompts_without_units_share_nothing_and_keep_their_order() -> None:
    tree = build_tree(prompts_of([[], [], []], prompt_tokens=[9, 4, 9]))
    assert (tree.shared_tokens, tree.prompt.tolist(), tree.depth.tolist()) == (0, [0, 1, 2], [0, 9, 4, 9])


def test_a_partial_last_block_is_shared_by_its_tokens() -> None:
    tree = build_tree(prompts_of([[1, 2], [1, 2, 3], [1, 2]], unit_tokens=512, prompt_tokens=[800, 1030, 700]))
    assert tree.prompt.tolist() == [2, 0, 1]
    assert tree.shared.tolist() == [0, 700, 800]


def test_blocks_behind_the_last_token_do_not_count() -> None:
    tree = build_tree(prompts_of([[1, 2, 3], [1, 2]], unit_tokens=4, prompt_tokens=[3, 8]))
    assert (tree.prompt.tolist(), tree.shared.tolist()) == ([0, 1], [0, 3])


def test_units_may_be_read_only_and_mapped(tmp_path: Path) -> None:
    made = prompts_of([[1, 2, 3], [1, 2, 4]])
    made.units.tofile(tmp_path / "units")
    mapped = np.memmap(tmp_path / "units", dtype=np.int32, mode="r")
    columns = {name: getattr(made, name) for name in Prompts.__dataclass_fields__}
    tree = build_tree(Prompts(**(columns | {"units": mapped})))
    assert tree.shared_tokens == 2


def test_a_chain_of_100_000_prompts_each_within_the_next() -> None:
    """Neither recursion nor quadratic time. All strings lie in one: only so do they fit memory."""
    count = 100_000
    length = np.random.default_rng(0).permutation(np.arange(1, count + 1, dtype=np.int32))
    none = np.zeros(count, dtype=np.int32)
    perm, lcp = sort_strings(Strings(np.ones(count, np.int32), np.zeros(count, np.int64), length, none, none))
    assert np.array_equal(length[perm], np.arange(1, count + 1))
    tree = tree_of(perm, shared_tokens(length[perm], lcp, 1), length[perm])
    assert len(tree) == 2 * count and int(tree.segment.sum()) == count


def test_a_million_equal_prompts() -> None:
    count = 1_000_000
    none = np.zeros(count, dtype=np.int32)
    perm, lcp = sort_strings(
        Strings(np.arange(300, dtype=np.int32), np.zeros(count, np.int64), np.full(count, 300, np.int32), none, none)
    )
    assert np.array_equal(perm, np.arange(count)) and (lcp[1:] == 300).all()


def test_progress_ends_at_its_total() -> None:
    events: list[Event] = []
    build_tree(prompts_of([[number % 7, number] for number in range(200_000)]), events.append)
    seen = [event.done for event in events if isinstance(event, Progress)]
    assert len(seen) > 4 and events == [Progress(done, seen[-1], "strings") for done in sorted(seen)]
