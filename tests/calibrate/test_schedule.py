"""The steps that the engine takes for known requests."""

from __future__ import annotations

import pytest

from blendrun.calibrate.base import Load, Step
from blendrun.calibrate.schedule import Policy, schedule

WIDE = Policy(chunk=1000, max_running=100, late=False)


def test_one_prompt_is_one_step() -> None:
    assert schedule([Load(10, 0, 1)], WIDE) == (Step(10, 100.0, 1),)


def test_a_cached_prefix_is_not_computed_again() -> None:
    assert schedule([Load(10, 9, 1)], WIDE) == (Step(1, 19.0, 1),)


def test_a_prompt_longer_than_the_chunk_takes_several_steps() -> None:
    steps = schedule([Load(2500, 0, 1)], WIDE)
    assert [step.prefill for step in steps] == [1000, 1000, 500]
    assert sum(step.square for step in steps) == 2500.0**2
    assert [step.admitted for step in steps] == [1, 0, 0]


def test_the_first_goes_alone_then_all_together_then_they_decode() -> None:
    steps = schedule([Load(10, 0, 3)] * 4, WIDE)
    assert [(step.prefill, step.rows, step.context) for step in steps] == [
        (10, 0, 0),
        (30, 0, 0),
        (0, 4, 44),
        (0, 4, 48),
    ]


def test_no_more_run_than_may_and_prefill_goes_first() -> None:
    policy = Policy(chunk=1000, max_running=2, late=False)
    steps = schedule([Load(10, 0, 2), Load(10, 0, 4), Load(10, 0, 2)], policy)
    assert [(step.admitted, step.rows) for step in steps] == [(1, 0), (1, 0), (0, 2), (1, 0), (0, 2), (0, 1)]


def test_a_late_slot_is_filled_one_step_later() -> None:
    policy = Policy(chunk=1000, max_running=2, late=True)
    steps = schedule([Load(10, 0, 2), Load(10, 0, 4), Load(10, 0, 2)], policy)
    assert [(step.admitted, step.rows) for step in steps] == [(1, 0), (1, 0), (0, 2), (0, 1), (1, 0), (0, 2)]


def test_mixed_steps_take_rows_along_within_the_chunk() -> None:
    policy = Policy(chunk=100, max_running=10, mixed=True, late=False)
    steps = schedule([Load(10, 0, 5), Load(150, 0, 2)], policy)
    assert [(step.prefill, step.rows) for step in steps] == [(10, 0), (99, 1), (51, 1), (0, 2), (0, 1)]


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("late", [False, True])
def test_every_token_is_computed_once(mixed: bool, late: bool) -> None:
    loads = [Load(7 * number % 90 + 5, number % 5, number % 7 + 1) for number in range(60)]
    steps = schedule(loads, Policy(chunk=64, max_running=6, mixed=mixed, late=late))
    assert sum(step.prefill for step in steps) == sum(load.prompt - load.cached for load in loads)
    assert sum(step.rows for step in steps) == sum(load.output - 1 for load in loads)
    assert sum(step.admitted for step in steps) == len(loads)
    assert max(step.rows for step in steps) <= 6
    wanted = sum(load.prompt * (load.output - 1) + load.output * (load.output - 1) // 2 for load in loads)
    assert sum(step.context for step in steps) == wanted
