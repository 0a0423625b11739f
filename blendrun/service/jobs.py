"""Jobs of several batches: each from its batches to their ends, on one engine, whatever comes between.

STORE/runs/ID/run.json names the batches of a job; beside it are job.jsonl and the state of the run, as of any run. A
server that was killed goes on with it as the command would: nothing is asked twice.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
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
from blendrun.service.ends import end_of, fail, hand_out
from blendrun.service.joined import join
from blendrun.service.newcomers import Newcomer, Newcomers, Predict, predicted
from blendrun.service.objects import ENDED, BatchError, BatchErrors, BatchObject, BatchStatus, new_id
from blendrun.service.reports import end_run
from blendrun.service.store import Store
from blendrun.service.watched import WatchedRun
from blendrun.store.folder import StateFolder
from blendrun.store.journal_tail import JournalTail
from blendrun.text import cut

_LOOK_S = 0.2
# After a failure that may pass: of the disk, of the engine.
_PAUSE_S, _RETRIES = 2.0, 5
_PASSING = (EngineUnavailableError.exit_code, OutputUnavailableError.exit_code)
_STOPPED = (DrainedError.exit_code, InterruptedRunError.exit_code)
# What the lines of one job may have against each other: their endpoint, or a word that is not to be.
_REFUSED = (UsageError.exit_code, InputInvalidError.exit_code)
# Times that a process which runs jobs may be lost in one of them.
_MOST_LOST = 3

Waiting = Callable[["Run"], Sequence[BatchObject]]


class Run(msgspec.Struct, kw_only=True):
    """A job of several batches. The place of each in `batches` is what its lines begin with."""

    id: str
    batches: list[str]


@dataclass(slots=True)
class _Tries:
    """Of one job since it last got on: times that its process was lost, that it is tried again. joined: those that
    joined it last. stand: batches that have no end yet, and answers that there are.
    """

    lost: int = 0
    again: int = 0
    joined: tuple[Newcomer, ...] = ()
    stand: tuple[int, int] = (0, 0)

    def look(self, left: Iterable[BatchObject]) -> None:
        """Forget failures where the job has got on since. left: batches without an end."""
        counts = [each.request_counts for each in left]
        stand = len(counts), sum(each.completed + each.failed for each in counts)
        if stand != self.stand:
            self.lost, self.again, self.stand = 0, 0, stand


@dataclass(slots=True)
class Jobs:
    """options: of a run with this job and output, of batches of so many owners. predict: see `Newcomers`.

    wake: set where something is to be looked at. stopping: set for good, when the server ends.
    """

    store: Store
    options: Callable[[Path, Path, int], RunOptions]
    host: Host = field(default_factory=Host)
    predict: Predict = predicted
    wake: threading.Event = field(default_factory=threading.Event)
    stopping: threading.Event = field(default_factory=threading.Event)

    def begin(self, chosen: Sequence[BatchObject]) -> Run:
        """A job of batches that wait."""
        run = Run(id=new_id("run-"), batches=[batch.id for batch in chosen])
        try:
            self.store.run(run.id).mkdir(mode=0o700)
            self._keep(run)
            for batch in chosen:
                self.store.change(batch, lambda each: setattr(each, "run", run.id))
        except BaseException:
            if not self.batches(run):
                self.store.remove_run(run.id)
            raise
        return run

    def unfinished(self) -> Run | None:
        """A job that has batches without an end; others leave what reports need."""
        for path in sorted(self.store.folder.glob("runs/*/run.json")):
            run = self.read(path.parent.name)
            if run is None:
                continue
            if any(batch.status not in ENDED for batch in self.batches(run).values()):
                return run
            end_run(self.store, run.id)
        return None

    def read(self, name: str) -> Run | None:
        """None where it cannot be read now, or is another folder's."""
        try:
            found = msgspec.json.decode((self.store.run(name) / "run.json").read_bytes(), type=Run)
        except (OSError, msgspec.DecodeError):
            return None
        return found if found.id == name else None

    def settle(self, run: Run) -> None:
        """Have its batches know that they are its. A kill may have come between."""
        for name in run.batches:
            batch = self.store.batches.get(name)
            if batch is not None and batch.run is None and not batch.alone and batch.status not in ENDED:
                self.store.change(batch, lambda each: setattr(each, "run", run.id))

    def batches(self, run: Run) -> dict[int, BatchObject]:
        """By place, without those that were taken out again."""
        found = {place: self.store.batches.get(name) for place, name in enumerate(run.batches)}
        return {place: batch for place, batch in found.items() if batch is not None and batch.run == run.id}

    def do(self, run: Run, waiting: Waiting) -> None:
        """Until all of its batches have ended, or the server has to. waiting: those that could join it now."""
        tries = _Tries()
        while not self.stopping.is_set() and (left := self._left(run)):
            try:
                self._do_left(run, left, tries, waiting)
            except (OSError, OutputUnavailableError) as error:
                # Of the store: there may be room again soon, and what was answered is kept.
                tries.look(self._left(run).values())
                if not self._is_tried_again(tries, str(error)):
                    raise

    def _do_left(self, run: Run, left: dict[int, BatchObject], tries: _Tries, waiting: Waiting) -> None:
        """A run of those that have no end yet, or the ends of those that are not to wait for one."""
        ending = {place: ends for place, batch in left.items() if (ends := end_of(batch)) is not None}
        if ending:
            self._end_early({place: left[place] for place in ending}, ending, self._output(run))
        elif (contents := self._contents(left)) is not None:
            job, output = self.store.run(run.id) / "job.jsonl", self._output(run)
            join(contents, job)
            options = self.options(job, output, len({batch.owner for batch in left.values()}))
            newcomers = Newcomers(options, self.predict, [batch.expires_at for batch in left.values()])
            ended = self._watched(run, options, left, newcomers, waiting)
            self._go_on(run, ended, newcomers, tries)

    def _is_tried_again(self, tries: _Tries, message: str) -> bool:
        """Whether a failure that may pass is given time to."""
        if tries.again >= _RETRIES:
            return False
        tries.again += 1
        sys.stderr.write(f"blendrun: a job is tried again: {message}\n")
        self.stopping.wait(_PAUSE_S)
        return True

    def _go_on(self, run: Run, ended: Ended | None, newcomers: Newcomers, tries: _Tries) -> None:
        """What becomes of a job whose run has ended."""
        tries.look(self._left(run).values())
        if ended is None and tries.lost < _MOST_LOST:
            # What it had answered is kept, and the next one goes on from there.
            tries.lost += 1
            return
        ended = ended or Ended(EngineUnavailableError.exit_code, "the process that runs jobs ended too often")
        code, left = ended.exit_code, self._left(run)
        if code in (EXIT_OK, EXIT_SOME_LINES_FAILED):
            self._complete(left, self._output(run))
        elif self._is_to_stop(left.values()):
            return
        elif code in _STOPPED and (joined := newcomers.take()):
            tries.joined = joined
            self._add(run, joined)
        elif code in _STOPPED:
            # Somebody has stopped it who was not asked to: what it has is kept.
            self.stopping.wait(_LOOK_S)
        elif code in _REFUSED and tries.joined:
            # They do not go with it after all: what it has is kept.
            for each in tries.joined:
                self.store.change(each.batch, wait_alone)
            tries.joined = ()
        elif code in _REFUSED and len(left) > 1:
            self._apart(run, left)
        elif code not in _PASSING or not self._is_tried_again(tries, ended.message):
            self.fail_all(run, ended.message)

    def _output(self, run: Run) -> Path:
        return self.store.run(run.id) / "answers.jsonl"

    def fail_all(self, run: Run, message: str) -> None:
        """What no batch of a job can be blamed for. Each gets what it has so far."""
        sys.stderr.write(f"blendrun: a job of {len(run.batches)} batches failed: {message}\n")
        left, ends = self._left(run), dict[int, BatchStatus]()
        for place, batch in left.items():
            ends[place] = "cancelled" if batch.status == "cancelling" else "failed"
            errors = BatchErrors(data=[BatchError(code="engine_error", message=cut(message))])
            self.store.change(batch, lambda each, errors=errors: setattr(each, "errors", errors))  # type: ignore[misc]
        self._end_early(left, ends, self._output(run))

    def _watched(
        self,
        run: Run,
        options: RunOptions,
        left: dict[int, BatchObject],
        newcomers: Newcomers,
        waiting: Waiting,
    ) -> Ended | None:
        output = self._output(run)

        def is_to_stop() -> bool:
            return self._is_to_stop(left.values())

        def is_to_drain() -> bool:
            return newcomers.are_to_join(self._newcomers(run, waiting(run)))

        def answered(places: list[int]) -> None:
            self._end_early({place: left[place] for place in places}, dict.fromkeys(places, "completed"), output)

        return WatchedRun(self.host, options, output, left, is_to_stop, is_to_drain, answered).run()

    def _left(self, run: Run) -> dict[int, BatchObject]:
        return {place: batch for place, batch in self.batches(run).items() if batch.status not in ENDED}

    def _is_to_stop(self, left: Iterable[BatchObject]) -> bool:
        """Whether a run of these batches is to end now."""
        return self.stopping.is_set() or any(end_of(batch) for batch in left)

    def _newcomers(self, run: Run, waiting: Sequence[BatchObject]) -> list[Newcomer]:
        found = list[Newcomer]()
        for batch in waiting:
            if (file := self.store.files.get(batch.input_file_id)) is not None:
                found.append(Newcomer(batch, len(run.batches) + len(found), self.store.content(file)))
        return found

    def _add(self, run: Run, joining: Sequence[Newcomer]) -> None:
        """The job goes on with these, too."""
        run.batches += [each.batch.id for each in joining]
        self._keep(run)
        self.settle(run)

    def _apart(self, run: Run, left: dict[int, BatchObject]) -> None:
        """The lines of these cannot be one job."""
        for batch in left.values():
            self.store.change(batch, wait_alone)
        self.store.remove_run(run.id)

    def _keep(self, run: Run) -> None:
        write_atomically(self.store.run(run.id) / "run.json", msgspec.json.encode(run))

    def _contents(self, left: dict[int, BatchObject]) -> list[tuple[int, Path]] | None:
        """Place and content of each batch; None where the input file of one is gone, which has failed then."""
        found = {place: self.store.files.get(batch.input_file_id) for place, batch in left.items()}
        for place, file in found.items():
            if file is None:
                fail(self.store, left[place], [BatchError(code="invalid_file", message="the input file was deleted")])
        return (
            [(place, self.store.content(file)) for place, file in found.items() if file]
            if all(found.values())
            else None
        )

    def _complete(self, left: dict[int, BatchObject], output: Path) -> None:
        paths = [path for path in (output, StateFolder(output).errors) if path.exists()]
        self._end(left, dict.fromkeys(left, "completed"), (line for path in paths for line in _lines(path)))

    def _end_early(self, some: dict[int, BatchObject], ends: dict[int, BatchStatus], output: Path) -> None:
        """Give batches what they have so far; all others go on."""
        self._end(some, ends, JournalTail(StateFolder(output).journal, errors=True).new())

    def _end(self, some: dict[int, BatchObject], ends: dict[int, BatchStatus], lines: Iterable[bytes]) -> None:
        for place, batch in some.items():
            if batch.status == "cancelling":
                # Perhaps answered all the same.
                ends[place] = "cancelled"
            elif ends[place] == "completed" and batch.status == "in_progress":
                self.store.change(batch, lambda each: each.turn("finalizing"))
        hand_out(self.store, some, lines, ends)


def wait_alone(batch: BatchObject) -> None:
    """It has no job any more, and the next one is its own."""
    batch.run, batch.alone = None, True


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from file
