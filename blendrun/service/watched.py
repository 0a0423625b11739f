"""A job on the host: how far its batches are is told while it runs, and it is stopped where one of them is to end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import orjson

from blendrun.backends.host import Ended, Host
from blendrun.backends.options import RunOptions
from blendrun.errors import BlendrunError, EngineUnavailableError
from blendrun.service.joined import place_of
from blendrun.service.objects import ENDED, BatchObject, Counts
from blendrun.store.folder import StateFolder
from blendrun.store.journal_tail import JournalTail

_LOOK_S = 0.2
# What is in flight may take so long where a batch, or the server, is to end; a second word ends the run at once. It is
# said again, as the first may have come before there was anybody to hear it.
_HURRY_S = 20.0
# The same, behind a drain.
_AGAIN_S = 10.0


@dataclass(slots=True)
class _Said:
    """When a run was told to end, and since when it is to hurry, as `time.monotonic` counts."""

    told: float | None = None
    hurried: float | None = None

    def due(self, hurry: bool, drain: float) -> bool:
        """Whether it is to be told now. drain: seconds that it gives what is in flight."""
        now = time.monotonic()
        if hurry and self.hurried is None:
            self.hurried = now
        if self.told is None:
            return True
        if self.hurried is not None:
            return now - max(self.told, self.hurried) > _HURRY_S
        return now - self.told > drain + _AGAIN_S

    def is_said(self, heard: bool) -> None:
        """heard: whether there was a run."""
        if heard:
            self.told = time.monotonic()


@dataclass(frozen=True, slots=True)
class WatchedRun:
    """output: of the run. batches: of the job, by place. is_to_stop: whether the run is to end now. is_to_drain:
    whether it is to end as soon as what is in flight is answered, within the time that its options give that. answered:
    told places of batches that have all of their answers while others have not.
    """

    host: Host
    options: RunOptions
    output: Path
    batches: dict[int, BatchObject]
    is_to_stop: Callable[[], bool]
    is_to_drain: Callable[[], bool]
    answered: Callable[[list[int]], None]

    def run(self) -> Ended | None:
        """How it ended; None where the host was lost."""
        found: list[Ended] = []

        def work() -> None:
            try:
                found.append(self.host.run(self.options))
            except EngineUnavailableError:
                return
            except BlendrunError as error:
                found.append(Ended(error.exit_code, str(error)))

        thread = threading.Thread(target=work, name="blendrun-run")
        thread.start()
        tail, said = JournalTail(StateFolder(self.output).journal, errors=True), _Said()
        counts = {place: Counts(total=batch.request_counts.total) for place, batch in self.batches.items()}
        try:
            while thread.is_alive():
                thread.join(_LOOK_S)
                self._tell(tail, counts)
                hurry = self.is_to_stop()
                if (hurry or self.is_to_drain()) and said.due(hurry, self.options.drain_timeout):
                    said.is_said(self.host.stop_run())
        finally:
            # Whatever went wrong here, nothing works on a job that nobody looks after.
            while thread.is_alive():
                self.host.stop_run()
                thread.join(_HURRY_S)
        return found[0] if found else None

    def _tell(self, tail: JournalTail, counts: dict[int, Counts]) -> None:
        """Count what has come in. Not kept: the journal says it again."""
        for text in tail.new():
            line = orjson.loads(text)
            if (found := counts.get(place_of(line["custom_id"]))) is not None:
                if line.get("error") is None:
                    found.completed += 1
                else:
                    found.failed += 1
        going_on = [place for place in counts if self.batches[place].status not in ENDED]
        for place in going_on:
            self.batches[place].request_counts = counts[place]
        done = [place for place in going_on if counts[place].completed + counts[place].failed == counts[place].total]
        # All at once: the end of the run is near, and has them in their order.
        if done and len(done) < len(going_on):
            self.answered(done)
