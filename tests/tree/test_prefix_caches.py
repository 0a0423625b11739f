"""What caches save, against caches that keep tokens one by one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blendrun.tree.build import build_tree
from blendrun.tree.heavy import heaviest_prefixes
from blendrun.tree.hits import lru_hits, path_hits
from blendrun.tree.shared import SharedPrefix, common_prefix
from tests.tree.prompt_lists import common, prompts_of, token_strings, unit_lists


@st.composite
def jobs_and_orders(draw: st.DrawFn) -> tuple[list[list[int]], list[int]]:
    units = draw(unit_lists.filter(len))
    return units, draw(st.lists(st.integers(0, len(units) - 1), max_size=60))


def slow_lru(strings: Sequence[tuple[object, ...]], order: list[int], capacity: int) -> list[int]:
    """Every prefix is an entry with the time of its last use; the oldest goes first, of equals the longest."""
    used: dict[tuple[object, ...], int] = {}
    hits = []
    for time, number in enumerate(order):
        prefixes = [strings[number][:length] for length in range(1, len(strings[number]) + 1)]
        hits.append(next((length for length, prefix in enumerate(prefixes) if prefix not in used), len(prefixes)))
        used |= dict.fromkeys(prefixes, time)
        for prefix in sorted(used, key=lambda each: (used[each], -len(each)))[: max(len(used) - capacity, 0)]:
            del used[prefix]
    return hits


@given(jobs_and_orders(), st.integers(0, 40))
def test_lru_is_exact_to_the_token(job: tuple[list[list[int]], list[int]], capacity: int) -> None:
    units, order = job
    prompts = prompts_of(units)
    tree = build_tree(prompts)
    hits = lru_hits(tree, np.array(order, dtype=np.int64), capacity)
    assert hits.tolist() == slow_lru(token_strings(prompts), order, capacity)


@given(unit_lists.filter(len))
def test_a_cache_that_holds_all_saves_what_the_tree_shares(units: list[list[int]]) -> None:
    tree = build_tree(prompts_of(units))
    for order in (np.arange(len(units)), tree.prompt, tree.prompt[::-1]):
        assert lru_hits(tree, order, tree.prompt_tokens).sum() == tree.shared_tokens
    assert path_hits(tree, tree.prompt).tolist() == tree.shared.tolist()


@given(jobs_and_orders())
def test_path_hits_are_what_the_request_before_leaves(job: tuple[list[list[int]], list[int]]) -> None:
    units, order = job
    prompts = prompts_of(units)
    strings = token_strings(prompts)
    pairs = zip([None, *order], order, strict=False)
    wanted = [0 if before is None else common(strings[before], strings[number]) for before, number in pairs]
    tree = build_tree(prompts)
    assert path_hits(tree, np.array(order, dtype=np.int64)).tolist() == wanted
    capped = path_hits(tree, np.array(order, dtype=np.int64), compute_last=True)
    assert capped.tolist() == [
        min(hit, max(len(strings[number]) - 1, 0)) for hit, number in zip(wanted, order, strict=True)
    ]


def test_the_engine_computes_the_last_token_of_a_copy() -> None:
    tree = build_tree(prompts_of([[1, 2, 3], [1, 2, 3], []]))
    assert lru_hits(tree, np.arange(3), 100).tolist() == [0, 3, 0]
    assert lru_hits(tree, np.arange(3), 100, compute_last=True).tolist() == [0, 2, 0]


def test_a_prompt_longer_than_the_cache_leaves_what_fits() -> None:
    tree = build_tree(prompts_of([list(range(10)), list(range(10)), [0, 1, 2]]))
    assert lru_hits(tree, np.array([0, 1, 1, 2]), 4).tolist() == [0, 4, 4, 3]


@pytest.mark.parametrize("count", [1, 2, 31, 32, 33, 64, 65, 700, 5_000])
def test_common_prefixes_of_any_two_leaves(count: int) -> None:
    rng = np.random.default_rng(count)
    prompts = prompts_of([rng.integers(0, 2, rng.integers(0, 20)).tolist() for _ in range(count)])
    tree = build_tree(prompts)
    a, b = rng.integers(0, count, (2, 3_000))
    a[:count], b[:count] = np.arange(min(count, 3_000)), np.arange(min(count, 3_000))
    strings = token_strings(prompts)
    wanted = [common(strings[tree.prompt[x]], strings[tree.prompt[y]]) for x, y in zip(a, b, strict=True)]
    assert common_prefix(tree, a, b).tolist() == wanted


def test_common_prefix_refuses_places_that_are_none() -> None:
    tree = build_tree(prompts_of([[1], [2]]))
    for wrong in (-1, 2):
        with pytest.raises(IndexError, match=r"from 0 to 1$"):
            SharedPrefix(tree)(np.array([0]), np.array([wrong]))
    assert len(SharedPrefix(build_tree(prompts_of([])))(np.array([], dtype=int), np.array([], dtype=int))) == 0


def test_heaviest_prefixes_are_nested() -> None:
    tree = build_tree(prompts_of([[1, 2, 3, 4], [1, 2, 3, 5], [1, 2, 6], [7, 8], [7, 9], [10]]))
    rows = heaviest_prefixes(tree)
    assert [(row.depth, row.segment, row.requests, row.saved, row.level, row.above) for row in rows] == [
        (2, 2, 3, 4, 0, -1),
        (3, 1, 2, 1, 1, 0),
        (1, 1, 2, 1, 0, -1),
    ]
    assert [row.example for row in rows] == [0, 0, 3]
    assert [row.node for row in heaviest_prefixes(tree, 2)] == [row.node for row in rows[:2]]
    assert heaviest_prefixes(tree, 0) == []


@given(unit_lists)
def test_all_prefixes_together_save_what_the_tree_shares(units: list[list[int]]) -> None:
    tree = build_tree(prompts_of(units))
    assert sum(row.saved for row in heaviest_prefixes(tree, len(tree))) == tree.shared_tokens
