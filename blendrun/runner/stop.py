"""Signals that stop a run, wherever it is: the same exit codes before, during and after the time the engine runs."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from blendrun.errors import BlendrunError, DrainedError, InterruptedRunError

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def stop_error(number: int, what_next: str = "") -> BlendrunError:
    """What ends a command that got this signal: 130 for Ctrl-C, 75 for a scheduler's."""
    end = f"; {what_next}" if what_next else ""
    if number == signal.SIGINT:
        return InterruptedRunError(f"interrupted{end}")
    return DrainedError(f"stopped by {signal.Signals(number).name}{end}")


@contextmanager
def stopping_by_exception() -> Iterator[None]:
    """Inside, a stop signal raises DrainedError or InterruptedRunError in the main thread, at once.

    For all that can simply be done again (resolving, indexing, writing); the runner drains in its own way.
    """

    def stop(number: int, _: FrameType | None) -> None:
        raise stop_error(number, "the same command goes on from here")

    with handlers_kept():
        for number in STOP_SIGNALS:
            signal.signal(number, stop)
        yield


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Give the stop signals their handlers back at the end: an event loop leaves the defaults behind."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
