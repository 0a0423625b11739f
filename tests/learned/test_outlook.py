"""How long a run will still take: by the plan at the speed of its steps, with the lengths that are expected now."""

from __future__ import annotations

import math

import pytest

from blendrun.events import EngineStats, Event, Expected, PhaseStarted, Progress, Work
from blendrun.learned.outlook import Outlook


def stats(paced: float, priced: float) -> EngineStats:
    return EngineStats(50, 0, 0, 0.0, 0.0, 0, 0, 0, 0, paced, priced)


def plan(seconds: float | None = 1000.0, engines: int = 1) -> Expected:
    return Expected(seconds, 10_000, None, 1000.0, 0.6, engines)


class Clock:
    """Seconds that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def outlook(clock: Clock) -> Outlook:
    return begun(clock, plan())


def begun(clock: Clock, *events: Event) -> Outlook:
    """Of a run whose engine has just come up, at second 0 of the clock."""
    found = Outlook(clock)
    for event in (*events, PhaseStarted("run")):
        found.take(event)
    return found


def middle(left: tuple[float, float] | None) -> float:
    assert left is not None
    return math.sqrt(left[0] * left[1])


def test_steps_that_take_four_times_as_long_make_the_rest_as_long(outlook: Outlook) -> None:
    outlook.take(stats(400.0, 100.0))
    assert middle(outlook.left()) == pytest.approx(900 * 4, rel=0.03)
    assert outlook.corrected == pytest.approx(4000, rel=0.03)


def test_before_there_are_many_steps_the_plan_speaks_too(outlook: Outlook) -> None:
    outlook.take(stats(3.0, 1.0))
    assert middle(outlook.left()) == pytest.approx(999 * 1.5, rel=0.03)
    assert outlook.corrected is None


def test_a_machine_that_becomes_slower_widens_the_range(outlook: Outlook) -> None:
    for second in range(0, 300, 2):
        outlook.take(stats(second, second))
    for second in range(0, 100, 2):
        outlook.take(stats(300 + 2 * second, 300 + second))
    left = outlook.left()
    assert left is not None
    low, high = left
    # And what a plan is off by, beside the speed of its steps.
    assert low * 1.15 == pytest.approx(602 * 496 / 398, rel=0.03)
    assert high / 1.15 == pytest.approx(602 * 2, rel=0.05)


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
    assert middle(outlook.left()) == pytest.approx(1500.0)


def test_what_failed_is_no_work_and_no_pace(outlook: Outlook) -> None:
    """Half of the requests failed at once: the other half is all there is."""
    outlook.take(Work(0.0, 0.0, 5000.0, 500.0))
    outlook.take(stats(10.0, 10.0))
    assert middle(outlook.left()) == pytest.approx(490.0)


def test_there_is_something_left_as_long_as_tokens_are(outlook: Outlook) -> None:
    outlook.take(Work(10_000.0, 900.0, 0.0, 100.0))
    outlook.take(stats(2000.0, 2000.0))
    assert middle(outlook.left()) > 25.0


def test_of_several_engines_each_has_its_part(clock: Clock) -> None:
    outlook = begun(clock, plan(engines=4))
    outlook.take(stats(800.0, 400.0))
    assert middle(outlook.left()) == pytest.approx(900 * 2, rel=0.03)


def test_without_a_plan_of_it_all_tokens_have_a_pace(clock: Clock) -> None:
    outlook = begun(clock, plan(None))
    assert outlook.left() is None
    clock.now = 50.0
    outlook.take(Work(2000.0, 100.0, 8000.0, 900.0))
    outlook.take(stats(50.0, 40.0))
    assert outlook.left() == pytest.approx((200.0 / 1.15, 450.0 * 1.15))
    outlook.take(Work(2000.0, 1.0, 8000.0, 999.0))
    assert outlook.left() == pytest.approx((200.0 / 1.15, 200.0 * 1.15)), "a thousandth of the answers is no pace"


def test_another_engine_begins_anew(outlook: Outlook) -> None:
    outlook.take(stats(400.0, 100.0))
    outlook.take(PhaseStarted("load", "engine"))
    assert outlook.left() is None
    outlook.take(plan(500.0))
    outlook.take(PhaseStarted("run"))
    outlook.take(stats(50.0, 50.0))
    assert middle(outlook.left()) == pytest.approx(450.0, rel=0.02)


def test_what_was_drawn_for_each_request_goes_before_the_plan_and_grows_old(outlook: Outlook, clock: Clock) -> None:
    outlook.take(stats(400.0, 100.0))
    clock.now = 400.0
    outlook.take(Work(1.0, 1.0, 1.0, 1.0, ahead=(30.0, 60.0)))
    assert outlook.left() == (30.0, 60.0)
    clock.now = 440.0
    assert outlook.left() == (0.0, 20.0)


def test_what_drains_ends_by_itself_or_is_stopped(outlook: Outlook, clock: Clock) -> None:
    outlook.take(Work(1.0, 1.0, 1.0, 1.0, ahead=(300.0, 600.0), in_flight=(4.0, 60.0)))
    outlook.take(PhaseStarted("drain", "SIGINT", 20.0))
    assert outlook.left() == (4.0, 20.0)
    clock.now = 15.0
    assert outlook.left() == (0.0, 5.0)
    outlook.take(PhaseStarted("write"))
    assert outlook.left() is None


def test_answers_are_a_pace_where_no_lengths_are_expected_and_failures_are_none(clock: Clock) -> None:
    outlook = begun(clock)
    outlook.take(Progress(0, 100, "requests"))
    clock.now = 10.0
    outlook.take(Progress(50, 100, "requests", failed=50))
    assert outlook.left() is None
    outlook.take(Progress(66, 100, "requests", failed=50))
    # 34 at a pace of 10 s for 16, which so many answers tell to a quarter.
    assert outlook.left() == pytest.approx((21.25 / 1.25, 21.25 * 1.25))


def test_short_answers_that_came_first_are_no_pace_of_a_planned_job(outlook: Outlook, clock: Clock) -> None:
    outlook.take(Progress(0, 100, "requests"))
    clock.now = 10.0
    outlook.take(Progress(50, 100, "requests"))
    assert outlook.left() is None
