"""Stop signals and deadlines while a command does what can be done again."""

from __future__ import annotations

import os
import signal
import time

import pytest

from blendrun.errors import DrainedError, InterruptedRunError
from blendrun.runner.stop import STOP_SIGNALS, handlers_kept, stopping_by_exception

# Whatever waits so long was not stopped: the test's own timeout ends it.
_FOR_EVER_S = 3600.0


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (signal.SIGINT, InterruptedRunError),
        (signal.SIGTERM, DrainedError),
        (signal.SIGUSR1, DrainedError),
        (signal.SIGHUP, DrainedError),
    ],
)
def test_what_forgives_every_failure_does_not_forgive_a_signal(number: int, error: type[Exception]) -> None:
    def forgiving() -> None:
        try:
            os.kill(os.getpid(), number)
            time.sleep(1)
        except Exception:  # noqa: BLE001  # as code does that must not fail for one odd line
            pytest.fail("the signal was taken for a failure")

    # The tests themselves may run under nohup.
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with pytest.raises(error), stopping_by_exception():
            forgiving()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_hang_up_that_is_ignored_as_under_nohup_stops_nothing() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping_by_exception():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_deadline_ends_what_runs_at_its_time() -> None:
    begun = time.monotonic()
    with pytest.raises(DrainedError, match="the deadline has come"), stopping_by_exception(begun + 0.3):
        time.sleep(_FOR_EVER_S)
    assert time.monotonic() - begun >= 0.3


def test_the_deadline_waits_while_a_loop_has_the_signals() -> None:
    begun = time.monotonic()
    with pytest.raises(DrainedError), stopping_by_exception(begun + 0.2):
        with handlers_kept():
            time.sleep(0.5)
            assert time.monotonic() - begun >= 0.5, "no alarm in here"
        time.sleep(_FOR_EVER_S)


def test_afterwards_nothing_of_it_is_left() -> None:
    numbers = (*STOP_SIGNALS, signal.SIGALRM)
    before, (left, _) = [signal.getsignal(number) for number in numbers], signal.getitimer(signal.ITIMER_REAL)
    with stopping_by_exception(time.monotonic() + 60):
        pass
    assert [signal.getsignal(number) for number in numbers] == before
    # Someone else's alarm goes on as it did.
    assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= left
