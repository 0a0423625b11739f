"""Whose turn it is: all batches that wait become one job, and one job runs after the other on one engine."""

from __future__ import annotations

import math
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from blendrun.errors import BlendrunError
from blendrun.service.ends import end_of, fail, hand_out
from blendrun.service.jobs import Jobs, Run
from blendrun.service.named import Named
from blendrun.service.objects import BatchError, BatchObject, BatchStatus, Counts
from blendrun.service.store import Store
from blendrun.service.validation import Limits, check

_LOOK_S = 0.2
# Who sends several batches sends them one after the other: so long after the last one the plan is made, and so long
# after the first one at the latest.
_GATHER_S, _MOST_GATHER_S = 1.0, 5.0
# After a failure of the store, which may pass.
_PAUSE_S = 2.0
# So often, while no job runs, it is looked for files whose time has come.
_SWEEP_S = 60.0
# Endpoints whose lines one engine answers.
_GENERATING = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/generate")
# Requests of one job, at most, those included that join it: who comes later waits for it to end.
MOST_TOGETHER = 200_000


@dataclass(slots=True)
class Desk:
    """idle: seconds without work after which the engine is let go; None for never."""

    store: Store
    jobs: Jobs
    limits: Limits
    named: Named
    idle: float | None = None
    # When the last batch was accepted, and the first of those that wait, as `time.monotonic` counts.
    _came: float = 0.0
    _first_came: float | None = None
    _thread: threading.Thread | None = None
    _checks: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "blendrun-check"))

    def start(self) -> None:
        """Go on where the last server stopped."""
        for path in self.store.folder.glob("runs/*/run.json"):
            if (run := self.jobs.read(path.parent.name)) is not None:
                self.jobs.settle(run)
        for batch in self._of("validating", "in_progress", "cancelling", "finalizing"):
            if batch.run is not None and self.jobs.read(batch.run) is None:
                # What was noted of its job is lost: it waits again.
                self.store.change(batch, lambda each: setattr(each, "run", None))
        for batch in self._of("validating"):
            self._checks.submit(self._validate, batch)
        self.store.drop_expired()
        self._thread = threading.Thread(target=self._work, name="blendrun-desk", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the run that is under way, as a signal ends a command, and the engine."""
        self.jobs.stopping.set()
        self.jobs.wake.set()
        self._checks.shutdown(cancel_futures=True)
        if self._thread is not None:
            self._thread.join()
        self.jobs.host.close()

    @property
    def lives(self) -> bool:
        """Whether batches are worked on."""
        return self._thread is not None and self._thread.is_alive()

    def take(self, batch: BatchObject) -> bool:
        """Have a new batch looked at, and then answered. Whether its file is still there."""
        if not self.store.add_batch(batch):
            return False
        self._checks.submit(self._validate, batch)
        return True

    def cancel(self, batch: BatchObject) -> None:
        """What it has so far is kept. One that has ended, or is about to, stays as it is."""

        def cancel(each: BatchObject) -> None:
            if each.status in ("validating", "in_progress"):
                each.turn("cancelling")

        self.store.change(batch, cancel)
        self.jobs.wake.set()

    def _of(self, *statuses: BatchStatus) -> list[BatchObject]:
        found = [batch for batch in self.store.all_batches() if batch.status in statuses]
        return sorted(found, key=lambda batch: batch.number)

    def _validate(self, batch: BatchObject) -> None:
        """Look at a new batch, and again after a pause where the store cannot be written."""
        while not self.jobs.stopping.is_set():
            try:
                self._look_at(batch)
            except Exception as error:  # noqa: BLE001  # nobody waits for this one's result, and all others would wait with it
                _say(error)
                self.jobs.stopping.wait(_PAUSE_S)
            else:
                return

    def _look_at(self, batch: BatchObject) -> None:
        file = self.store.files.get(batch.input_file_id)
        try:
            if file is None:
                raise FileNotFoundError(2, "the input file was deleted")
            found = check(self.store.content(file), batch.endpoint, self.limits)
        except OSError as error:
            fail(self.store, batch, [BatchError(code="invalid_file", message=str(error.strerror))])
            return
        if found.errors:
            fail(self.store, batch, found.errors)
            return

        named = self.named.of(found.models)

        def accept(each: BatchObject) -> None:
            each.request_counts = Counts(total=found.lines)
            each.model, each.notes = named
            if each.status == "validating":
                each.turn("in_progress")

        self._came = time.monotonic()
        self._first_came = self._came if self._first_came is None else self._first_came
        self.store.change(batch, accept)
        self.jobs.wake.set()

    def _work(self) -> None:
        rested = swept = time.monotonic()
        while not self.jobs.stopping.is_set():
            self.jobs.wake.clear()
            try:
                if time.monotonic() - swept > _SWEEP_S:
                    swept = time.monotonic()
                    self.store.drop_expired()
                worked = self._turn()
                if worked:
                    rested = time.monotonic()
                elif self.idle is not None and time.monotonic() - rested > self.idle:
                    self.jobs.host.release()
                    rested = math.inf
            except Exception as error:  # noqa: BLE001  # a store that cannot be written for a while must not end the desk
                _say(error)
                self.jobs.stopping.wait(_PAUSE_S)
                continue
            if not worked:
                self.jobs.wake.wait(_LOOK_S)

    def _turn(self) -> bool:
        """Do the next job, if there is one."""
        self._end_those_that_wait()
        run = self.jobs.unfinished() or self._next()
        if run is None:
            return False
        try:
            self.jobs.do(run, self._waiting)
        except Exception as error:  # noqa: BLE001  # one job's failure is not that of the next one
            _say(error)
            self.jobs.fail_all(run, f"{type(error).__name__}: {error}")
        return True

    def _end_those_that_wait(self) -> None:
        """Cancelled or expired before their turn came."""
        for batch in self._of("cancelling", "in_progress"):
            if batch.run is None and (ends := end_of(batch)) is not None:
                hand_out(self.store, {0: batch}, (), {0: ends})

    def _waiting(self, run: Run) -> list[BatchObject]:
        """Those that could join a job now: as `_next`, and never more in one job than in another."""
        there = list(self.jobs.batches(run).values())
        if any(batch.alone for batch in there) or self._more_may_come():
            return []
        count, requests = len(there), sum(batch.request_counts.total for batch in there)
        return self._together(there, requests)[count:]

    def _next(self) -> Run | None:
        """A job of all that wait and that one engine answers, the oldest first, as far as they go together."""
        chosen = self._together([], 0)
        if not chosen or (self._more_may_come() and not chosen[0].alone):
            return None
        self._first_came = None
        return self.jobs.begin(chosen)

    def _together(self, chosen: list[BatchObject], requests: int) -> list[BatchObject]:
        """These, of a job of so many requests, and all that wait and can go with them."""
        for batch in self._of("in_progress"):
            if batch.run is None:
                apart = batch.alone or _kind(batch) != _kind(chosen[0]) or chosen[0].alone if chosen else False
                more = requests + batch.request_counts.total
                if chosen and (apart or more > MOST_TOGETHER):
                    continue
                chosen.append(batch)
                requests = more
        return chosen

    def _more_may_come(self) -> bool:
        now_s = time.monotonic()
        return now_s - self._came < _GATHER_S and now_s - (self._first_came or 0.0) < _MOST_GATHER_S


def _kind(batch: BatchObject) -> str:
    """What an engine is to be like for its lines."""
    return "" if batch.endpoint in _GENERATING else batch.endpoint


def _say(error: Exception) -> None:
    """To whoever runs the server; with the place in the code where nobody foresaw it."""
    if isinstance(error, (OSError, BlendrunError)):
        sys.stderr.write(f"blendrun: {error}\n")
    else:
        traceback.print_exc()
