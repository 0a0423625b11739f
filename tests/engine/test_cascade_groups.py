"""Which rows of a batch share what: the groups that spare most reading."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blendrun.engine.cascade.groups import Groups, groups_of


def rows(*slots: list[int]) -> list[np.ndarray]:
    return [np.array(each, dtype=np.int32) for each in slots]


def shown(groups: Groups) -> list[tuple[set[int], int]]:
    members = np.split(groups.rows, groups.first[1:-1])
    return [(set(each.tolist()), shared) for each, shared in zip(members, groups.shared.tolist(), strict=True)]


def test_a_document_and_its_questions_are_a_group() -> None:
    document = list(range(100, 110))
    found = groups_of(rows([*document, 1], [7, 8, 9], [*document, 2, 3], [*document, 4]), 4)
    assert sorted(shown(found), key=lambda each: min(each[0])) == [({0, 2, 3}, 10), ({1}, 1)]
    assert found.spared == 20


def test_of_nested_prefixes_the_one_that_spares_most() -> None:
    system, one, other = [5, 6], list(range(10, 20)), list(range(30, 40))
    deep = groups_of(rows(*([*system, *document, end] for document in (one, other) for end in (1, 2, 3))), 2)
    assert sorted(len(each) for each, _ in shown(deep)) == [3, 3]
    assert deep.shared.tolist() == [12, 12]
    # Seven rows behind two slots spare more than two of them behind twelve.
    wide = groups_of(rows(*([*system, place, 1] for place in range(10, 15)), [*system, 9, 1, 2], [*system, 9, 1, 3]), 2)
    assert shown(wide) == [(set(range(7)), 2)]


def test_short_prefixes_are_nobody_s() -> None:
    found = groups_of(rows([1, 2, 3, 9], [1, 2, 3, 8]), 4)
    assert found.spared == 0
    assert found.shared.tolist() == [1, 1]


def test_the_slot_that_is_being_written_is_a_row_s_own() -> None:
    twins = groups_of(rows([1, 2, 3, 4], [1, 2, 3, 4]), 1)
    assert shown(twins) == [({0, 1}, 3)]
    with pytest.raises(ValueError, match="reads"):
        groups_of(rows([1]), 1)


@given(st.lists(st.lists(st.integers(0, 2), min_size=2, max_size=6), min_size=1, max_size=7), st.integers(1, 4))
def test_no_other_groups_spare_more(slots: list[list[int]], least: int) -> None:
    found = groups_of(rows(*slots), least)
    assert sorted(found.rows.tolist()) == list(range(len(slots)))
    for members, shared in shown(found):
        beginnings = {tuple(slots[row][:-1][:shared]) for row in members}
        assert len(beginnings) == 1
        assert len(next(iter(beginnings))) == shared
        assert shared >= least or len(members) == 1
    assert found.spared == most_spared(tuple(sorted(tuple(each[:-1]) for each in slots)), least)


@cache
def most_spared(sorted_rows: tuple[tuple[int, ...], ...], least: int) -> int:
    """By trying every cut of the sorted rows into neighbours."""
    if not sorted_rows:
        return 0
    best = most_spared(sorted_rows[1:], least)
    for count in range(2, len(sorted_rows) + 1):
        one, other = sorted_rows[0], sorted_rows[count - 1]
        differ = [at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b]
        common = min(differ, default=min(len(one), len(other)))
        if common >= least:
            best = max(best, (count - 1) * common + most_spared(sorted_rows[count:], least))
    return best
