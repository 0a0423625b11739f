"""From deaths of an engine to the request that kills it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from blendrun.runner.recovery import Recovery


def run_until_found(recovery: Recovery, rows: list[int], kills: Callable[[list[int]], bool]) -> tuple[list[int], int]:
    """Feed as the supervisor does: isolated groups first, then what is left. Returns rows to blame, and starts."""
    left, blamed, starts = list(rows), [], 0
    while left and not recovery.given_up:
        starts += 1
        died = None
        while died is None and recovery.groups:
            group = [row for row in recovery.groups[0] if row in left]
            if kills(group):
                died = group
            else:
                left = [row for row in left if row not in group]
                recovery.survived()
        if died is None and left:
            if kills(left):
                died = left
            else:
                left = []
        if died is not None and (row := recovery.died(died)) is not None:
            blamed.append(row)
            left.remove(row)
    return blamed, starts


@pytest.mark.parametrize("poison", [0, 1, 77, 159])
def test_one_request_that_kills_is_found_among_many(poison: int) -> None:
    blamed, starts = run_until_found(Recovery(3), list(range(160)), lambda rows: poison in rows)
    assert blamed == [poison]
    # Two deaths of the whole, then one a halving, then the end.
    assert starts <= 2 + 8 + 2


def test_several_are_found_one_after_the_other() -> None:
    blamed, _ = run_until_found(Recovery(3), list(range(20)), lambda rows: bool({3, 4, 17} & set(rows)))
    assert sorted(blamed) == [3, 4, 17]


def test_what_kills_only_together_is_answered_apart() -> None:
    blamed, _ = run_until_found(Recovery(3), list(range(16)), lambda rows: {2, 13} <= set(rows))
    assert blamed == []


def test_deaths_that_share_nothing_use_up_the_restarts() -> None:
    recovery = Recovery(2)
    for rows in ([1, 2], [3, 4]):
        assert recovery.died(rows) is None
        assert not recovery.given_up
        assert not recovery.groups
    recovery.died([5])
    assert recovery.given_up


def test_without_memory_it_gets_smaller_and_what_was_in_flight_is_looked_at() -> None:
    recovery = Recovery(9)
    recovery.died([1, 2], out_of_memory=True)
    assert (recovery.shrinks, list(recovery.groups)) == (1, [])
    recovery.died([1, 2, 3], out_of_memory=True)
    assert (recovery.shrinks, list(recovery.groups)) == (2, [[1], [2]])
    assert recovery.died([1], out_of_memory=True) == 1
    for _ in range(5):
        recovery.died([], out_of_memory=True)
    assert recovery.shrinks == 3
