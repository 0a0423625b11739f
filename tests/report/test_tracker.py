"""How a run stands: rates, shares, and how long it will take."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console, Group

from blendrun.events import EngineStats, Event, Expected, PhaseStarted, Progress, Work
from blendrun.report.terminal.live_view import panel, spark
from blendrun.report.tracker import ProgressTracker

GOLDEN = Path(__file__).with_name("golden")


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def stats(steps: int, prefill: int, decode: int, *, kv: int = 600, prefill_seconds: float = 0.0) -> EngineStats:
    return EngineStats(steps, prefill, decode, prefill_seconds, steps * 0.1 - prefill_seconds, kv, 1000, 4, 2)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tracker(clock: Clock) -> ProgressTracker:
    return ProgressTracker(clock)


@pytest.fixture
def at(tracker: ProgressTracker, clock: Clock) -> Callable[[float, Event], None]:
    def take(second: float, event: Event) -> None:
        clock.now = 100.0 + second
        tracker.take(event)

    return take


At = Callable[[float, Event], None]


def test_rates_are_of_the_last_ten_seconds(tracker: ProgressTracker, at: At) -> None:
    for second in range(0, 30, 2):
        at(second, stats(second, 100 * second if second < 20 else 2000, 10 * second))
    rates = tracker.rates()
    assert rates is not None
    assert rates[1] == pytest.approx(10.0)
    # Ten of the seconds from 18 to 28, of which two had prefill.
    assert rates[0] == pytest.approx(20.0)


def test_another_engine_counts_from_zero(tracker: ProgressTracker, at: At) -> None:
    at(0, stats(100, 5000, 100))
    at(2, stats(120, 6000, 120))
    at(3, PhaseStarted("load"))
    at(4, stats(3, 30, 3))
    assert tracker.rates() is None
    at(6, stats(5, 50, 5))
    assert tracker.rates() == (10.0, 1.0)


def test_shares_of_the_cache_are_those_of_answers_and_of_the_plan(tracker: ProgressTracker, at: At) -> None:
    at(0, Expected(60.0, 10_000, 4_000, 1_000))
    at(0, PhaseStarted("run", "100 requests"))
    at(10, Progress(40, 120, "requests", 0, 8, 2_500, 900, 100))
    assert tracker.cached_share() == pytest.approx(0.36)
    assert tracker.planned_share() == pytest.approx(0.4)


def test_phases_have_their_times(tracker: ProgressTracker, at: At, clock: Clock) -> None:
    for second, name in ((0, "index"), (1, "tokenise"), (1, "tokenise"), (4, "run")):
        at(second, PhaseStarted(name))
    clock.now = 110.0
    assert [(phase.name, tracker.seconds(phase)) for phase in tracker.phases] == [
        ("index", 1.0),
        ("tokenise", 3.0),
        ("run", 6.0),
    ]


@pytest.mark.parametrize("width", [200, 120, 80, 40])
def test_the_view_of_a_run(
    tracker: ProgressTracker, at: At, clock: Clock, width: int, request: pytest.FixtureRequest
) -> None:
    at(0, PhaseStarted("index", "jobs.jsonl"))
    at(1, Expected(60.0, 10_000, 4_000, 1_000))
    at(2, PhaseStarted("load", "engine"))
    at(40, PhaseStarted("run", "100 requests, 8 at once, order blended"))
    at(40, Progress(0, 100, "requests"))
    for second in range(0, 20, 2):
        at(40 + second, stats(10 * second, 90 * second * second, 30 * second, prefill_seconds=0.4 * second))
    at(60, Work(3_500.0, 250.0, 6_500.0, 750.0, ahead=(31.0, 58.0)))
    at(60, Progress(30, 100, "requests", 1, 8, 3_500, 1_400, 250, cut=3))
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None).print(Group(*panel(tracker, width)))
    shown = "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"
    path = GOLDEN / f"live-{width}.txt"
    if request.config.getoption("--write-golden", default=False):
        path.write_text(shown, encoding="utf-8")
    assert shown == path.read_text(encoding="utf-8")
    assert max(map(len, shown.splitlines())) <= width


def test_next_to_nothing_is_no_picture(tracker: ProgressTracker, at: At) -> None:
    at(0, PhaseStarted("run", "2 requests"))
    for second in range(0, 10, 2):
        at(second, EngineStats(second, 0, second // 2, 0.0, 1.0, 20, 1000, 3, 0))
    at(10, Progress(0, 2, "requests", in_flight=2))
    stream = io.StringIO()
    Console(file=stream, width=80, color_system=None).print(Group(*panel(tracker, 80)))
    shown = stream.getvalue()
    assert "░" not in shown.partition("KV pool")[2].splitlines()[0]
    assert "2 decode\n" in "\n".join(line.rstrip() for line in shown.splitlines()) + "\n", "not 3 of 2 in flight"
    assert "0 failed" in shown
    assert "█" not in shown.partition("last minute")[2]
    assert "time left" in shown and "not known yet" in shown


def test_sparks_reach_from_nothing_to_the_most() -> None:
    assert spark([0, 5, 10]) == "▁▅█"
    assert spark([0, 1, 0.5]) == "▁▂▁", "a token a second fills no line"
    assert spark([0, 0]) == "▁▁"
    assert re.fullmatch("[▁▂▃▄▅▆▇█]{7}", spark([3, 1, 4, 1, 5, 9, 2]))


def test_after_a_restart_what_is_left_is_counted_from_there(tracker: ProgressTracker, at: At) -> None:
    at(0, Expected(None, 10_000, None, None))
    at(0, PhaseStarted("run"))
    at(0, Progress(0, 100, "requests"))
    at(40, Progress(80, 100, "requests", 0, 0, 8_000, 0, 0))
    at(41, stats(50, 100, 10))
    # The engine died: the plan is of the rest, the counts go on.
    at(42, Expected(None, 2_000, None, None))
    at(42, PhaseStarted("load"))
    at(80, PhaseStarted("run"))
    at(80, Progress(80, 100, "requests", 0, 8, 8_000, 0, 0))
    assert tracker.left() is None, "this engine has answered nothing yet"
    at(82, stats(200, 40, 5))
    at(84, stats(220, 60, 7))
    assert tracker.rates() == (10.0, 1.0)
