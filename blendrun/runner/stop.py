"""Signals that stop a run, wherever it is: the same exit codes before, during and after the time the engine runs."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from blendrun.errors import BlendrunError, DrainedError, InterruptedRunError

_AGAIN = "the same command goes on from here"
# SIGHUP comes when a terminal or a connection goes away.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


def stop_signals() -> tuple[signal.Signals, ...]:
    """Those that stop this process: under `nohup`, which ignores SIGHUP, it goes on."""
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return tuple(number for number in STOP_SIGNALS if number != signal.SIGHUP or not ignored)


def stop_error(number: int, what_next: str = "") -> BlendrunError:
    """What ends a command that got this signal: 130 for Ctrl-C, 75 for a scheduler's."""
    end = f"; {what_next}" if what_next else ""
    if number == signal.SIGINT:
        return InterruptedRunError(f"interrupted{end}")
    return DrainedError(f"stopped by {signal.Signals(number).name}{end}")


class Stopped(BaseException):
    """A stop signal has come. No Exception: what forgives a line or a file its failure must not forgive this.

    error: what the command ends with.
    """

    def __init__(self, error: BlendrunError) -> None:
        super().__init__(str(error))
        self.error = error


@contextmanager
def stops_as_errors() -> Iterator[None]:
    """Inside, a signal that comes raises DrainedError or InterruptedRunError out of here."""
    try:
        yield
    except Stopped as stopped:
        raise stopped.error from None


@contextmanager
def stopping_by_exception(deadline: float | None = None) -> Iterator[None]:
    """Inside, a stop signal or the deadline raises `Stopped` in the main thread, at once; outside it is its error.

    For all that can simply be done again (resolving, indexing, writing); the runner drains in its own way, before the
    deadline. deadline: seconds of `time.monotonic`.
    """

    def stop(number: int, _: FrameType | None) -> None:
        raise Stopped(stop_error(number, _AGAIN))

    def late(_: int, __: FrameType | None) -> None:
        raise Stopped(DrainedError(f"the deadline has come; {_AGAIN}"))

    with handlers_kept(), stops_as_errors():
        for number in stop_signals():
            signal.signal(number, stop)
        if deadline is not None:
            signal.signal(signal.SIGALRM, late)
            signal.setitimer(signal.ITIMER_REAL, max(deadline - time.monotonic(), 0.001))
        try:
            yield
        finally:
            if deadline is not None:
                signal.setitimer(signal.ITIMER_REAL, 0)


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Give the stop signals their handlers back at the end: an event loop leaves the defaults behind.

    A deadline's alarm is held back meanwhile, as a loop swallows what is raised between its tasks.
    """
    before = {number: signal.getsignal(number) for number in (*STOP_SIGNALS, signal.SIGALRM)}
    begun, (left, interval) = time.monotonic(), signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        yield
    finally:
        left = max(left - (time.monotonic() - begun), 0.001) if left else 0
        signal.setitimer(signal.ITIMER_REAL, left, interval)
        for number, handler in before.items():
            signal.signal(number, handler)
