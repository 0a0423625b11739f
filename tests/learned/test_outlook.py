"""How long a run will still take: by the plan at the speed of its steps, with the lengths that are expected now."""

from __future__ import annotations

import pytest

from blendrun.events import EngineStats, Expected, PhaseStarted, Work
from blendrun.learned.outlook import Outlook


def stats(paced: float, priced: float) -> EngineStats:
    return EngineStats(1, 0, 0, 0.0, 0.0, 0, 0, 0, 0, paced, priced)


def plan(seconds: float | None = 1000.0, engines: int = 1) -> Expected:
    return Expected(seconds, 10_000, None, 1000.0, 0.6, engines)


@pytest.fixture
def outlook() -> Outlook:
    found = Outlook()
    found.take(plan())
    return found


def middle(left: tuple[float, float] | None) -> float:
    assert left is not None
    return (left[0] + left[1]) / 2


def test_steps_that_take_four_times_as_long_make_the_rest_as_long(outlook: Outlook) -> None:
    outlook.take(stats(400.0, 100.0))
    assert middle(outlook.left(400.0)) == pytest.approx(900 * 4, rel=0.03)
    assert outlook.corrected == pytest.approx(4000, rel=0.03)


def test_before_there_are_many_steps_the_plan_speaks_too(outlook: Outlook) -> None:
    outlook.take(stats(3.0, 1.0))
    assert middle(outlook.left(3.0)) == pytest.approx(999 * 1.5, rel=0.03)
    assert outlook.corrected is None


def test_a_machine_that_becomes_slower_widens_the_range(outlook: Outlook) -> None:
    for second in range(0, 300, 2):
        outlook.take(stats(second, second))
    for second in range(0, 100, 2):
        outlook.take(stats(300 + 2 * second, 300 + second))
    left = outlook.left(500.0)
    assert left is not None
    low, high = left
    assert low == pytest.approx(602 * 496 / 398, rel=0.03)
    assert high == pytest.approx(602 * 2, rel=0.05)


def test_the_correction_is_told_once(outlook: Outlook) -> None:
    outlook.take(stats(130.0, 65.0))
    told = outlook.corrected
    outlook.take(stats(900.0, 500.0))
    assert told is not None
    assert outlook.corrected == told


def test_longer_answers_than_planned_are_more_work(outlook: Outlook) -> None:
    outlook.take(Work(1000.0, 200.0, 9000.0, 1800.0))
    outlook.take(stats(100.0, 100.0))
    # Twice the output tokens, which 0.6 of the plan's seconds depend on.
    assert outlook.planned == pytest.approx(1600.0)
    assert middle(outlook.left(100.0)) == pytest.approx(1500.0)


def test_what_failed_is_no_work_and_no_pace(outlook: Outlook) -> None:
    """Half of the requests failed at once: the other half is all there is."""
    outlook.take(Work(0.0, 0.0, 5000.0, 500.0))
    outlook.take(stats(10.0, 10.0))
    assert middle(outlook.left(10.0)) == pytest.approx(490.0)


def test_there_is_something_left_as_long_as_tokens_are(outlook: Outlook) -> None:
    outlook.take(Work(10_000.0, 900.0, 0.0, 100.0))
    outlook.take(stats(2000.0, 2000.0))
    assert middle(outlook.left(2000.0)) > 25.0


def test_of_several_engines_each_has_its_part() -> None:
    outlook = Outlook()
    outlook.take(plan(engines=4))
    outlook.take(stats(800.0, 400.0))
    assert middle(outlook.left(200.0)) == pytest.approx(900 * 2, rel=0.03)


def test_without_a_plan_of_it_all_tokens_have_a_pace() -> None:
    outlook = Outlook()
    assert outlook.left(10.0) is None
    outlook.take(plan(None))
    outlook.take(Work(2000.0, 100.0, 8000.0, 900.0))
    outlook.take(stats(50.0, 40.0))
    assert outlook.left(50.0) == pytest.approx((200.0, 450.0))
    outlook.take(Work(2000.0, 1.0, 8000.0, 999.0))
    assert outlook.left(50.0) == pytest.approx((200.0, 200.0)), "a thousandth of the answers is no pace"


def test_another_engine_begins_anew(outlook: Outlook) -> None:
    outlook.take(stats(400.0, 100.0))
    outlook.take(PhaseStarted("load", "engine"))
    assert outlook.left(500.0) is None
    outlook.take(plan(500.0))
    outlook.take(stats(50.0, 50.0))
    assert middle(outlook.left(600.0)) == pytest.approx(450.0)
