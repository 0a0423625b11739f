"""Seconds of one call, by the clock that sees the device's work and nothing else."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, Protocol

_WARM_UPS = 2
# Of a sample on a device: one call of a quarter of a millisecond would be mostly launch and wake-up.
CALLS = 20


class Mark(Protocol):
    """A point in a device's stream of work: `torch.cuda.Event(enable_timing=True)`."""

    def record(self) -> None:
        """Put it behind everything that was launched so far."""
        ...

    def synchronize(self) -> None:
        """Wait until the device has come to it."""
        ...

    def elapsed_time(self, later: Any) -> float:
        """Milliseconds from this mark to a later one, by the device's clock."""
        ...


def by_host(run: Callable[[], Any], repeats: int) -> float:
    """Median seconds of a call that is done when it returns, after a warm-up."""
    taken = []
    for _ in range(_WARM_UPS + repeats):
        begun = time.perf_counter()
        run()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken[_WARM_UPS:])


def by_device(run: Callable[[], Any], repeats: int, mark: Callable[[], Mark]) -> float:
    """Median seconds of a call that only launches, after a warm-up: the mean of `CALLS` in a row, between two marks.

    The calls wait for each other on the device, not for the host, as the kernels of a step do.
    """
    taken = []
    for _ in range(_WARM_UPS + repeats):
        begin, end = mark(), mark()
        begin.record()
        for _ in range(CALLS):
            run()
        end.record()
        end.synchronize()
        taken.append(begin.elapsed_time(end) / 1e3 / CALLS)
    return statistics.median(taken[_WARM_UPS:])
