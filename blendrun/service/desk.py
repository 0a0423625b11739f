"""Whose turn it is: all batches that wait become one job, and one job runs after the other on one engine.

STORE/runs/ID/run.json names the batches of a job; beside it are job.jsonl and the state of the run, as of any run. A
server that was killed goes on with it as the command would: nothing is asked twice.
"""

from __future__ import annotations

import math
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from blendrun.backends.host import Ended, Host
from blendrun.backends.options import RunOptions
from blendrun.errors import (
    EXIT_OK,
    EXIT_SOME_LINES_FAILED,
    DrainedError,
    EngineUnavailableError,
    InputInvalidError,
    InterruptedRunError,
    OutputUnavailableError,
    UsageError,
)
from blendrun.files import write_atomically
from blendrun.service.ends import hand_out
from blendrun.service.joined import join
from blendrun.service.objects import (
    ENDED,
    BatchError,
    BatchErrors,
    BatchObject,
    BatchStatus,
    Counts,
    new_id,
    now,
)
from blendrun.service.store import Store
from blendrun.service.validation import Limits, check
from blendrun.service.watched import WatchedRun
from blendrun.store.folder import StateFolder
from blendrun.store.journal_tail import JournalTail
from blendrun.text import cut

_LOOK_S = 0.2
# Who sends several batches sends them one after the other: so long after the last one the plan is made, and so long
# after the first one at the latest.
_GATHER_S, _MOST_GATHER_S = 1.0, 5.0
# After a failure that may pass: of the store, of the disk, of the engine.
_PAUSE_S, _RETRIES = 2.0, 5
_PASSING = (EngineUnavailableError.exit_code, OutputUnavailableError.exit_code)
_STOPPED = (DrainedError.exit_code, InterruptedRunError.exit_code)
# What the lines of one job may have against each other: their endpoint, or a word that is not to be.
_REFUSED = (UsageError.exit_code, InputInvalidError.exit_code)
# Endpoints whose lines one engine answers.
_GENERATING = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/generate")
# Times that a process which runs jobs may be lost in one of them.
_MOST_LOST = 3
# Requests of one plan, at most: who comes later waits for it to end.
MOST_TOGETHER = 200_000


class Run(msgspec.Struct, kw_only=True):
    """A job of several batches. The place of each in `batches` is what its lines begin with."""

    id: str
    batches: list[str]


@dataclass(slots=True)
class Desk:
    """options: of a run with this job and output, of batches of so many owners. idle: seconds without work after which
    the engine is let go; None for never.
    """

    store: Store
    options: Callable[[Path, Path, int], RunOptions]
    limits: Limits
    idle: float | None = None
    host: Host = field(default_factory=Host)
    _wake: threading.Event = field(default_factory=threading.Event)
    _stopping: bool = False
    # When the last batch was accepted, and the first of those that wait, as `time.monotonic` counts.
    _came: float = 0.0
    _first_came: float | None = None
    _thread: threading.Thread | None = None
    _checks: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "blendrun-check"))

    def start(self) -> None:
        """Go on where the last server stopped."""
        for batch in self._of("validating", "in_progress", "cancelling", "finalizing"):
            if batch.run is not None and self._read_run(batch.run) is None:
                # What was noted of its job is lost: it waits again.
                self._wait_again(batch, alone=batch.alone)
        for batch in self._of("validating"):
            self._checks.submit(self._validate, batch)
        self._thread = threading.Thread(target=self._work, name="blendrun-desk", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the run that is under way, as a signal ends a command, and the engine."""
        self._stopping = True
        self._wake.set()
        self._checks.shutdown(cancel_futures=True)
        if self._thread is not None:
            self._thread.join()
        self.host.close()

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
        self._wake.set()

    def _of(self, *statuses: BatchStatus) -> list[BatchObject]:
        found = [batch for batch in self.store.all_batches() if batch.status in statuses]
        return sorted(found, key=lambda batch: batch.number)

    def _validate(self, batch: BatchObject) -> None:
        """Look at a new batch, and again after a pause where the store cannot be written."""
        while not self._stopping:
            try:
                self._look_at(batch)
            except Exception:  # noqa: BLE001  # nobody waits for this one's result, and all others would wait with it
                traceback.print_exc()
                time.sleep(_PAUSE_S)
            else:
                return

    def _look_at(self, batch: BatchObject) -> None:
        file = self.store.files.get(batch.input_file_id)
        try:
            if file is None:
                raise FileNotFoundError(2, "the input file was deleted")
            found = check(self.store.content(file), batch.endpoint, self.limits)
        except OSError as error:
            self._fail(batch, [BatchError(code="invalid_file", message=str(error.strerror))])
            return
        if found.errors:
            self._fail(batch, found.errors)
            return

        def accept(each: BatchObject) -> None:
            each.request_counts = Counts(total=found.lines)
            each.model = found.model
            if each.status == "validating":
                each.turn("in_progress")

        self._came = time.monotonic()
        self._first_came = self._came if self._first_came is None else self._first_came
        self.store.change(batch, accept)
        self._wake.set()

    def _fail(self, batch: BatchObject, errors: list[BatchError]) -> None:
        def fail(each: BatchObject) -> None:
            if each.status in ENDED:
                return
            if each.status == "cancelling":
                each.turn("cancelled")
                return
            each.errors = BatchErrors(data=errors)
            each.turn("failed")

        self.store.change(batch, fail)

    def _work(self) -> None:
        rested = time.monotonic()
        while not self._stopping:
            self._wake.clear()
            try:
                worked = self._turn()
                if worked:
                    rested = time.monotonic()
                elif self.idle is not None and time.monotonic() - rested > self.idle:
                    self.host.release()
                    rested = math.inf
            except Exception:  # noqa: BLE001  # a store that cannot be written for a while must not end the desk
                traceback.print_exc()
                self._wake.wait(_PAUSE_S)
                continue
            if not worked:
                self._wake.wait(_LOOK_S)

    def _turn(self) -> bool:
        """Do the next job, if there is one."""
        self._end_those_that_wait()
        run = self._unfinished() or self._next()
        if run is None:
            return False
        try:
            self._do(run)
        except Exception as error:  # noqa: BLE001  # one job's failure is not that of the next one
            traceback.print_exc()
            self._fail_all(run, f"{type(error).__name__}: {error}")
        return True

    def _end_those_that_wait(self) -> None:
        """Cancelled or expired before their turn came."""
        for batch in self._of("cancelling", "in_progress"):
            if batch.run is None and (ends := self._end_of(batch)) is not None:
                hand_out(self.store, {0: batch}, (), {0: ends})

    def _end_of(self, batch: BatchObject) -> BatchStatus | None:
        """How a batch ends that is to end now, whatever it has."""
        if batch.status == "cancelling":
            return "cancelled"
        return "expired" if batch.status == "in_progress" and now() >= batch.expires_at else None

    def _unfinished(self) -> Run | None:
        for path in sorted(self.store.folder.glob("runs/*/run.json")):
            run = self._read_run(path.parent.name)
            if run is None:
                continue
            if any(batch.status not in ENDED for batch in self._batches(run).values()):
                return run
            self.store.remove_run(run.id)
        return None

    def _read_run(self, name: str) -> Run | None:
        """None where it cannot be read now, or is another folder's."""
        try:
            found = msgspec.json.decode((self.store.run(name) / "run.json").read_bytes(), type=Run)
        except (OSError, msgspec.DecodeError):
            return None
        return found if found.id == name else None

    def _wait_again(self, batch: BatchObject, *, alone: bool) -> None:
        def wait(each: BatchObject) -> None:
            each.run, each.alone = None, alone

        self.store.change(batch, wait)

    def _next(self) -> Run | None:
        """All that wait and that one engine answers, the oldest first, as far as they go together."""
        chosen: list[BatchObject] = []
        for batch in self._of("in_progress"):
            if batch.run is None:
                requests = sum(each.request_counts.total for each in chosen) + batch.request_counts.total
                apart = batch.alone or _kind(batch) != _kind(chosen[0]) or chosen[0].alone if chosen else False
                if chosen and (apart or requests > MOST_TOGETHER):
                    continue
                chosen.append(batch)
        now_s = time.monotonic()
        early = now_s - self._came < _GATHER_S and now_s - (self._first_came or 0.0) < _MOST_GATHER_S
        if not chosen or (early and not chosen[0].alone):
            return None
        self._first_came = None
        run = Run(id=new_id("run-"), batches=[batch.id for batch in chosen])
        self.store.run(run.id).mkdir(mode=0o700)
        write_atomically(self.store.run(run.id) / "run.json", msgspec.json.encode(run))
        for batch in chosen:
            self.store.change(batch, lambda each: setattr(each, "run", run.id))
        return run

    def _batches(self, run: Run) -> dict[int, BatchObject]:
        """By place."""
        return {place: self.store.batches[name] for place, name in enumerate(run.batches) if name in self.store.batches}

    def _do(self, run: Run) -> None:
        """Until all of its batches have ended, or the server has to."""
        folder = self.store.run(run.id)
        job, output = folder / "job.jsonl", folder / "answers.jsonl"
        lost = tried = 0
        while not self._stopping:
            left = {place: batch for place, batch in self._batches(run).items() if batch.status not in ENDED}
            ending = {place: ends for place, batch in left.items() if (ends := self._end_of(batch)) is not None}
            if ending:
                self._end_early(left, ending, output)
                continue
            if not left:
                return
            if (contents := self._contents(left)) is None:
                continue
            join(contents, job)
            owners = len({batch.owner for batch in left.values()})
            watched = WatchedRun(self.host, self.options(job, output, owners), output, left, self._is_to_stop)
            ended = watched.run()
            if ended is None and lost < _MOST_LOST:
                # What it had answered is kept, and the next one goes on from there.
                lost += 1
                continue
            ended = ended or Ended(EngineUnavailableError.exit_code, "the process that runs jobs ended too often")
            code = ended.exit_code
            if code in (EXIT_OK, EXIT_SOME_LINES_FAILED):
                self._complete(left, output)
            elif self._is_to_stop(left.values()):
                continue
            elif code in _STOPPED:
                # Somebody has stopped it who was not asked to: what it has is kept.
                self._wake.wait(_LOOK_S)
            elif len(left) > 1 and code in _REFUSED:
                for batch in left.values():
                    self._wait_again(batch, alone=True)
                self.store.remove_run(run.id)
                return
            elif code in _PASSING and tried < _RETRIES:
                tried += 1
                sys.stderr.write(f"blendrun: a job is tried again: {ended.message}\n")
                self._wake.wait(_PAUSE_S)
            else:
                self._fail_all(run, ended.message)

    def _is_to_stop(self, left: Iterable[BatchObject]) -> bool:
        """Whether a run of these batches is to end now."""
        return self._stopping or any(self._end_of(batch) for batch in left)

    def _contents(self, left: dict[int, BatchObject]) -> list[tuple[int, Path]] | None:
        """Place and content of each batch; None where the input file of one is gone, which has failed then."""
        found = {place: self.store.files.get(batch.input_file_id) for place, batch in left.items()}
        for place, file in found.items():
            if file is None:
                self._fail(left[place], [BatchError(code="invalid_file", message="the input file was deleted")])
        return (
            [(place, self.store.content(file)) for place, file in found.items() if file]
            if all(found.values())
            else None
        )

    def _complete(self, left: dict[int, BatchObject], output: Path) -> None:
        ends: dict[int, BatchStatus] = {}
        for place, batch in left.items():
            # Asked to be cancelled, and answered all the same.
            ends[place] = "cancelled" if batch.status == "cancelling" else "completed"
            if batch.status == "in_progress":
                self.store.change(batch, lambda each: each.turn("finalizing"))
        paths = [path for path in (output, StateFolder(output).errors) if path.exists()]
        lines = (line for path in paths for line in _lines(path))
        hand_out(self.store, left, lines, ends)

    def _end_early(self, left: dict[int, BatchObject], ending: dict[int, BatchStatus], output: Path) -> None:
        """Give batches what they have so far; all others go on."""
        some = {place: left[place] for place in ending}
        hand_out(self.store, some, JournalTail(StateFolder(output).journal, errors=True).new(), ending)

    def _fail_all(self, run: Run, message: str) -> None:
        """What no batch of a job can be blamed for. Each gets what it has so far."""
        sys.stderr.write(f"blendrun: a job of {len(run.batches)} batches failed: {message}\n")
        left = {place: batch for place, batch in self._batches(run).items() if batch.status not in ENDED}
        ends: dict[int, BatchStatus] = {}
        for place, batch in left.items():
            ends[place] = "cancelled" if batch.status == "cancelling" else "failed"
            errors = BatchErrors(data=[BatchError(code="engine_error", message=cut(message))])
            self.store.change(batch, lambda each, errors=errors: setattr(each, "errors", errors))  # type: ignore[misc]
        journal = StateFolder(self.store.run(run.id) / "answers.jsonl").journal
        hand_out(self.store, left, JournalTail(journal, errors=True).new(), ends)


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from file


def _kind(batch: BatchObject) -> str:
    """What an engine is to be like for its lines."""
    return "" if batch.endpoint in _GENERATING else batch.endpoint
