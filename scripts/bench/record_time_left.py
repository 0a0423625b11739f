"""Record a run for `tests/learned/test_time_left.py`: its events, and what was ahead each time that was looked at.

    PYTHONPATH=. python scripts/bench/record_time_left.py RECORDING.json.gz JOBS.jsonl ANSWERS.jsonl [NAME=VALUE ...]

NAME=VALUE: options of a run, as Python has them. A run that is stopped is recorded up to there. One moment in half a
second is kept.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from blendrun.backends.options import RunOptions
from blendrun.backends.session import run_job
from blendrun.events import Event, Listener, Note, PhaseStarted, Progress, Work
from blendrun.learned.ahead import Ahead, seconds_ahead
from blendrun.report.terminal.progress import LineView
from blendrun.runner import remaining
from tests.learned.time_left import Moment, write_recording

_EVERY_S = 0.5


class Recorder:
    """Keeps events with their time, and what was ahead at each `Work`."""

    def __init__(self) -> None:
        self.moments: list[Moment] = []
        self._looked: list[Ahead] = []
        self._view = LineView(sys.stderr, interval=5.0)

    def look(self, ahead: Ahead) -> tuple[float, float]:
        """In the place of `seconds_ahead`."""
        self._looked.append(ahead)
        return seconds_ahead(ahead)

    def __call__(self, event: Event) -> None:
        self._view(event)
        if isinstance(event, Note):
            return
        looked, self._looked = self._looked, []
        whole = looked[0] if looked and isinstance(event, Work) and event.ahead else None
        self.moments.append(Moment(time.monotonic(), event, whole, looked[-1] if looked else None))

    @contextmanager
    def open(self) -> Iterator[Listener]:
        yield self


def thinned(moments: list[Moment]) -> tuple[list[Moment], float]:
    """From the phase `run` on, with one moment of each kind in half a second; and the second of the last answer."""
    begun = next(each.second for each in moments if isinstance(each.event, PhaseStarted) and each.event.name == "run")
    ends = max(each.second for each in moments if isinstance(each.event, Progress)) - begun
    kept, last = list[Moment](), dict[type, float]()
    for each in moments:
        second = max(each.second - begun, 0.0)
        keep = not isinstance(each.event, Work | Progress) or second - last.get(type(each.event), -_EVERY_S) >= _EVERY_S
        if keep and (each.second >= begun or not isinstance(each.event, Progress)):
            last[type(each.event)] = second
            kept.append(Moment(second, each.event, each.whole, each.in_flight))
    return kept, ends


def main() -> None:
    path, jobs, output, *pairs = sys.argv[1:]
    given: dict[str, Any] = {"model": "smollm2-135m"} | dict(pair.split("=", 1) for pair in pairs)
    if "drain_timeout" in given:
        given["drain_timeout"] = float(given["drain_timeout"])
    recorder = Recorder()
    vars(remaining)["seconds_ahead"] = recorder.look
    try:
        run_job(RunOptions.of(given | {"inputs": [jobs], "output": output}), recorder.open())
    finally:
        write_recording(Path(path), *thinned(recorder.moments))


if __name__ == "__main__":
    main()
