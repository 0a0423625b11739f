"""Reads the engine's step log, also while it grows: how far the answers are that still run, how long steps take."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson

from blendrun.events import EngineStats
from blendrun.learned.pace import Pace, PaceKeeper
from blendrun.learned.sample import StepSample
from blendrun.planner.feeder import QueuedRequest
from blendrun.simulate.price import StepPrice

# Between two steps the engine answers and builds the next batch; what goes beyond that is no step's: there was nothing
# to do. Seconds, and a part of the step.
_BETWEEN, _BETWEEN_SHARE = 0.05, 0.5
# Tokens of a row before any has decoded.
_CONTEXT = 512.0


def logged_steps(path: Path, at: int = 0) -> Iterator[dict[str, Any]]:
    """Steps from byte `at` on; none of a log that cannot be read. Lines torn by a kill are left out."""
    try:
        file = path.open("rb")
    except OSError:
        return
    with file:
        file.seek(at)
        for line in file:
            step = _step(line)
            if step is not None:
                yield step


def _step(line: bytes) -> dict[str, Any] | None:
    try:
        step = orjson.loads(line)
    except orjson.JSONDecodeError:
        # Torn by a kill of the run before: the log is appended to.
        return None
    return step if isinstance(step, dict) and "step" in step and "time" in step else None


class StepTail:
    """The lines that this invocation's engine adds to the log."""

    def __init__(self, path: Path, price: StepPrice | None = None) -> None:
        """price: what the plan's model says of a step, to compare it with."""
        self._path = path
        self._at = _size(path)
        self._decoded = self._most_rows = 0
        self._steps = self._prefill_tokens = self._decode_tokens = 0
        self._prefill_seconds = self._decode_seconds = 0.0
        self._last: dict[str, Any] | None = None
        self._price = price
        self._paced = self._priced = 0.0
        self._recent = PaceKeeper(price)
        # Of the last step, when it began and what is known of it: its time ends where the next one begins.
        self._under_way: tuple[float, float, tuple[int, int, int, int, int]] | None = None
        self.sample = StepSample()
        # Place in the plan to the decode steps that were done when its prefill began.
        self._admitted: dict[int, int] = {}

    @property
    def held(self) -> int:
        """Requests that are remembered."""
        return len(self._admitted)

    def read(self) -> None:
        """Take in what was added. A log that cannot be read adds nothing."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._at)
                added = file.read()
        except OSError:
            return
        whole = added[: added.rfind(b"\n") + 1]
        self._at += len(whole)
        for line in whole.splitlines():
            if (step := _step(line)) is None:
                continue
            self._admitted |= dict.fromkeys(step["admitted"], self._decoded)
            self._decoded += step["decode_rows"] > 0
            self._count(step)

    def stats(self, pool_tokens: int) -> EngineStats | None:
        """What was read so far, as one event; None before the first step."""
        if self._last is None:
            return None
        return EngineStats(
            steps=self._steps,
            prefill_tokens=self._prefill_tokens,
            decode_tokens=self._decode_tokens,
            prefill_seconds=self._prefill_seconds,
            decode_seconds=self._decode_seconds,
            kv_used=self._last["kv_used"],
            pool_tokens=pool_tokens,
            running=self._last["decode_rows"],
            waiting=self._last["waiting"],
            paced_seconds=self._paced,
            priced_seconds=self._priced,
        )

    def pace(self, rows: int) -> Pace | None:
        """What steps take just now, with up to so many rows; None before any step says it."""
        last = self._last
        known = last is not None and last["decode_rows"] and last.get("context_tokens")
        of_row = last["context_tokens"] / last["decode_rows"] if last is not None and known else _CONTEXT
        return self._recent.pace(rows, of_row)

    @property
    def computed(self) -> int:
        """Prompt tokens that were computed."""
        return self._prefill_tokens

    @property
    def most_rows(self) -> int:
        """Answers that were decoded at once, at most."""
        return self._most_rows

    def finish(self) -> None:
        """The engine takes no more steps: read the rest, and count the last one."""
        self.read()
        self._book(None)

    def _book(self, begun: float | None) -> None:
        """The step under way is over. begun: when the next one began; None where there is none."""
        if self._under_way is None:
            return
        began, seconds, what = self._under_way
        self._under_way = None
        between = 0.0 if begun is None else begun - began - seconds
        seconds += min(max(between, 0.0), max(_BETWEEN, _BETWEEN_SHARE * seconds))
        prefill, square, rows, context, new = what
        self.sample.add(prefill, square, rows, context, new, seconds)
        priced = 0.0 if self._price is None else self._price(prefill, square, rows, context, new)
        if self._price is not None:
            self._paced += seconds
            self._priced += priced
        self._recent.add(what, seconds, priced, None if begun is None else begun - began)

    def _count(self, step: dict[str, Any]) -> None:
        self._steps += 1
        self._prefill_tokens += step["prefill_tokens"]
        self._decode_tokens += step["decode_rows"]
        self._most_rows = max(self._most_rows, step["decode_rows"])
        self._last = step
        if step["prefill_tokens"]:
            self._prefill_seconds += step["seconds"]
        else:
            self._decode_seconds += step["seconds"]
        self._book(step["time"])
        self._under_way = _what(step)

    def answered(self, queued_requests: Iterable[QueuedRequest]) -> dict[int, int]:
        """Tokens that the answers of running requests have, by prompt; those not admitted yet are left out.

        queued_requests: all that run. Others that the log told of are forgotten: they ended before it was read.
        """
        running = [queued for queued in queued_requests if queued.index in self._admitted]
        self._admitted = {queued.index: self._admitted[queued.index] for queued in running}
        return {queued.prompt: self._decoded - self._admitted[queued.index] for queued in running if queued.prompt >= 0}

    def forget(self, queued: QueuedRequest) -> None:
        """A request has ended."""
        self._admitted.pop(queued.index, None)


def _what(step: dict[str, Any]) -> tuple[float, float, tuple[int, int, int, int, int]] | None:
    """When a step began, its seconds, and what was in it; None where the log does not say, or steps go on side by side
    on parts of the device.
    """
    if step.get("parallel") or "prefill_square" not in step:
        return None
    prefill, rows = step["prefill_tokens"], step["decode_rows"]
    what = prefill, step["prefill_square"], rows, step["context_tokens"], step["begun"]
    return step["time"], step["seconds"], what


def _size(path: Path) -> int:
    """Bytes; 0 where nothing can be read."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
