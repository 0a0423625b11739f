"""The time left that is shown holds the truth: over recorded runs, and over made ones of any size.

The rule: from the first tenth of a run on, at nine of ten moments the range holds the seconds that were really left;
half of the ranges are no wider than the part of the whole run that is given with each. A moment without a range is one
at which it did not hold.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from blendrun.events import EngineStats, Expected, PhaseStarted, Work
from blendrun.learned.ahead import LEVELS, Ahead, seconds_ahead
from blendrun.learned.outlook import Outlook
from blendrun.learned.pace import Pace, PaceKeeper
from tests.learned.time_left import Clock, Moment, read_recording, shown

DATA = Path(__file__).with_name("data")
HELD, WIDTH = 0.9, {"demo": 0.6, "tails": 0.45, "failed": 0.45, "resumed": 0.5}


@pytest.mark.parametrize("name", sorted(WIDTH))
def test_the_range_of_a_recorded_run_holds_the_truth(name: str) -> None:
    found = shown(*read_recording(DATA / f"{name}.json.gz"))
    assert found.moments >= 12
    assert found.held >= HELD, found
    assert found.width <= WIDTH[name], found
    assert found.none <= 0.1, found


def test_after_a_stop_it_says_how_long_what_is_in_flight_takes() -> None:
    moments, _ = read_recording(DATA / "stopped.json.gz")
    begin = next(place for place, each in enumerate(moments) if each.event == PhaseStarted("drain", "SIGINT", 6.0))
    clock = Clock()
    outlook = Outlook(clock)
    for each in moments[: begin + 1]:
        clock.now = each.second
        outlook.take(each.event)
    left = outlook.left()
    assert left is not None
    assert left[1] <= 6.0


def made_run(seed: int, *, requests: int, slots: int, sigma: float) -> tuple[list[Moment], float]:
    """Answers of log-normal lengths, of which their kind's distribution is known; steps that take more or less."""
    drawn = np.random.default_rng(seed)
    lengths = np.maximum(drawn.lognormal(4.0, sigma, requests).round(), 1)
    table = np.quantile(drawn.lognormal(4.0, sigma, 4000).round(), LEVELS)
    base, row = 0.05, 0.01
    waiting, running, made = lengths.tolist()[::-1], list[float](), list[float]()
    now, told, moments, steps = 0.0, 0.0, [Moment(0.0, PhaseStarted("run"))], 0.0
    while waiting or running:
        while waiting and len(running) < slots:
            running.append(waiting.pop())
            made.append(0.0)
        took = (base + row * len(running)) * drawn.uniform(0.8, 1.3)
        now, steps = now + took, steps + took
        made = [each + 1 for each in made]
        kept = [place for place, each in enumerate(made) if each < running[place]]
        running, made = [running[place] for place in kept], [made[place] for place in kept]
        if now - told >= 0.5:
            told = now
            pace = Pace(0.0, base, row, 0.0, steps)
            now_run, now_wait = (np.tile(table, (count, 1)) for count in (len(made), len(waiting)))
            ahead = Ahead(np.array(made), now_run, now_wait, (0.0, 0.0), slots, pace, False)
            moments.append(Moment(now, Work(0.0, 0.0, 0.0, 0.0, ahead=(0.0, 0.0)), ahead))
    return moments, now


@pytest.mark.parametrize(
    ("requests", "slots", "sigma", "width"),
    [(12, 12, 0.8, 1.6), (40, 8, 0.8, 1.05), (150, 16, 0.5, 0.6), (150, 16, 1.2, 1.3)],
)
def test_the_range_of_made_runs_holds_the_truth(requests: int, slots: int, sigma: float, width: float) -> None:
    """Of heavy-tailed lengths, each by its own luck; width: what may be said of so few."""
    found = [
        shown(*made_run(seed, requests=requests, slots=slots, sigma=sigma))
        for seed in range(6 if requests < 100 else 2)
    ]
    held = np.average([each.held for each in found], weights=[each.moments for each in found])
    assert held >= HELD - 0.005
    assert np.mean([each.width for each in found]) <= width


@pytest.mark.parametrize("times", [0.3, 1.0, 4.0])
def test_of_a_job_too_large_to_be_drawn_the_plan_at_the_pace_of_its_steps_is_right(times: float) -> None:
    """times: how often as long as planned a step takes, which varies; the machine is a third slower for a while."""
    drawn = np.random.default_rng(1)
    planned, done, now = 3000.0, 0.0, 0.0
    moments = [Moment(0.0, Expected(planned, 1_000_000, None, 200_000.0)), Moment(0.0, PhaseStarted("run"))]
    while done < planned:
        priced = min(2.0, planned - done)
        slow = 1.3 if 900 < done < 1200 else 1.0
        done, now = done + priced, now + priced * times * slow * drawn.uniform(0.9, 1.1)
        share = done / planned
        left = [(1 - share) * tokens for tokens in (1e6, 2e5)]
        moments += [
            Moment(now, EngineStats(1, 0, 0, 0.0, now, 0, 0, 0, 0, now, done)),
            Moment(now, Work(1e6 - left[0], 2e5 - left[1], left[0], left[1])),
        ]
    found = shown(moments, now)
    assert found.held >= HELD, found
    assert found.width <= 0.2, found


def test_what_cannot_get_longer_ends_when_its_steps_are_done() -> None:
    lengths = np.full((4, len(LEVELS)), 100.0)
    ahead = Ahead(
        np.full(4, 40.0), lengths, np.empty((0, len(LEVELS))), (0.0, 0.0), 4, Pace(0, 0.1, 0.01, 0, 1e6), False
    )
    low, high = seconds_ahead(ahead)
    assert low < 60 * (0.1 + 4 * 0.01) < high < 1.25 * 1.25 * low


def test_no_answer_is_expected_beyond_its_limit() -> None:
    lengths = np.broadcast_to(np.linspace(1, 50, len(LEVELS)), (3, len(LEVELS)))
    pace = Pace(0, 1.0, 0.0, 0, 1e9)
    ahead = Ahead(np.full(3, 45.0), lengths, np.empty((0, len(LEVELS))), (0.0, 0.0), 3, pace, True)
    low, high = seconds_ahead(ahead)
    assert 1.0 / 1.2 < low <= high < 5.0 * 1.25


def test_more_than_fit_at_once_take_their_turn() -> None:
    lengths = np.full((6, len(LEVELS)), 10.0)
    none = np.empty((0, len(LEVELS)))
    ahead = Ahead(np.empty(0), none, lengths, (0.0, 0.0), 2, Pace(0, 1.0, 0.0, 0, 1e9), False)
    low, high = seconds_ahead(ahead)
    assert low == pytest.approx(30 / 1.12, rel=0.01) and high == pytest.approx(30 * 1.22, rel=0.01)


def test_prompts_that_are_still_to_be_read_count() -> None:
    none = np.empty((0, len(LEVELS)))
    ahead = Ahead(np.empty(0), none, none, (100.0, 200.0), 2, Pace(0.1, 0, 0, 1e9, 0), False)
    low, high = seconds_ahead(ahead)
    assert low == pytest.approx(10 / 1.12, rel=0.01) and high == pytest.approx(20 * 1.22, rel=0.01)


class TestPace:
    def test_without_a_step_there_is_none(self) -> None:
        assert PaceKeeper().pace(4, 100.0) is None

    def test_prefill_and_decode_have_each_their_own(self) -> None:
        keeper = PaceKeeper()
        keeper.add((100, 10_000, 0, 0, 1), 2.0, 0.0)
        for _ in range(10):
            keeper.add((0, 0, 4, 400, 0), 0.5, 0.0)
        pace = keeper.pace(4, 100.0)
        assert pace is not None
        assert pace.prefill == pytest.approx(0.02)
        assert pace.base + 4 * pace.row == pytest.approx(0.5)

    def test_a_model_gives_the_shape_and_steps_the_speed(self) -> None:
        keeper = PaceKeeper(lambda prefill, square, rows, context, new: 0.1 + 0.01 * rows)
        for _ in range(100):
            keeper.add((0, 0, 2, 200, 0), 0.36, 0.12)
        pace = keeper.pace(8, 100.0)
        assert pace is not None
        assert pace.base == pytest.approx(0.3, rel=0.02) and pace.row == pytest.approx(0.03, rel=0.02)

    def test_it_says_how_fast_and_slow_the_machine_was_at_its_moments(self) -> None:
        for price in (None, lambda prefill, square, rows, context, new: 0.05):
            keeper = PaceKeeper(price)
            for seconds in (*[0.1] * 300, *[0.2] * 50):
                keeper.add((0, 0, 1, 10, 0), seconds, 0.05 if price else 0.0)
            pace = keeper.pace(1, 10.0)
            assert pace is not None
            mean = 40 / 350
            assert (pace.fastest, pace.slowest) == pytest.approx((0.1 / mean, 0.2 / mean), rel=0.05)

    def test_it_is_of_the_last_minute(self) -> None:
        keeper = PaceKeeper()
        for seconds in (*[1.0] * 200, *[2.0] * 31):
            keeper.add((0, 0, 1, 10, 0), seconds, 0.0)
        pace = keeper.pace(1, 10.0)
        assert pace is not None
        assert pace.base + pace.row == pytest.approx(2.0)
