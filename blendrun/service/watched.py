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
# A run that was told to stop gets the word again: it may have come before there was anybody to hear it.
_AGAIN_S = 30.0


@dataclass(frozen=True, slots=True)
class WatchedRun:
    """output: of the run. batches: of the job, by place. is_to_stop: whether the run is to end now. answered: told
    places of batches that have all of their answers while others have not.
    """

    host: Host
    options: RunOptions
    output: Path
    batches: dict[int, BatchObject]
    is_to_stop: Callable[[], bool]
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
        tail, told = JournalTail(StateFolder(self.output).journal, errors=True), 0.0
        counts = {place: Counts(total=batch.request_counts.total) for place, batch in self.batches.items()}
        try:
            while thread.is_alive():
                thread.join(_LOOK_S)
                self._tell(tail, counts)
                if self.is_to_stop() and time.monotonic() - told > _AGAIN_S and self.host.stop_run():
                    told = time.monotonic()
        finally:
            # Whatever went wrong here, nothing works on a job that nobody looks after.
            if thread.is_alive():
                self.host.stop_run()
                thread.join()
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
