"""Batches that come while a job runs: whether they are to join it, and not to wait for its end.

That is worked out once for each set of them, beside the job: what is left of it and the newcomers, as one plan and one
after the other. To join, the job is stopped, as by a signal, and goes on with all of them.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import orjson

from blendrun.backends.joining import answer_of, asked_of, start
from blendrun.backends.options import RunOptions
from blendrun.errors import BlendrunError
from blendrun.planner.joining import Joining
from blendrun.service.joined import join, prefix_of
from blendrun.service.objects import BatchObject, now
from blendrun.store import status as statuses
from blendrun.store.folder import StateFolder
from blendrun.store.journal_tail import JournalTail
from blendrun.text import plural

# What is saved is at least this part of all that is left, as predictions are not better than that.
_LEAST_PART = 0.05
# An engine that has to be loaded anew, because what it had was not answered at the end of the drain.
_LOAD_S = 60.0


@dataclass(frozen=True, slots=True)
class Newcomer:
    """A batch that would join, its place in the job and its content."""

    batch: BatchObject
    place: int
    content: Path


# Of a job (options, newcomers): what joining would bring; None where nobody can say. Takes its time.
Predict = Callable[[RunOptions, Sequence[Newcomer]], Joining | None]


@dataclass(slots=True)
class Newcomers:
    """Of one job. options: of its runs. ends: until when each of its batches is to be answered, s since 1970."""

    options: RunOptions
    predict: Predict
    ends: Sequence[int]
    # Those that were looked at last, and those that are to join: by id.
    _looked: tuple[str, ...] = ()
    _join: tuple[Newcomer, ...] = ()
    _thread: threading.Thread | None = None

    def are_to_join(self, waiting: Sequence[Newcomer]) -> bool:
        """Whether the job is to be stopped for them now. Looks at others than before in a thread of its own."""
        names = tuple(each.batch.id for each in waiting)
        if not waiting or self._join or names == self._looked or (self._thread is not None and self._thread.is_alive()):
            return bool(self._join)
        self._looked = names
        self._thread = threading.Thread(target=self._look, args=(tuple(waiting),), name="blendrun-join", daemon=True)
        self._thread.start()
        return False

    def take(self) -> tuple[Newcomer, ...]:
        """Those that are to join, once."""
        found, self._join = self._join, ()
        return found

    def _look(self, waiting: tuple[Newcomer, ...]) -> None:
        begun = time.monotonic()
        found = self.predict(self.options, waiting)
        if found is None:
            return
        # Reading and planning take as long once more.
        planning = time.monotonic() - begun
        if _pays(found, planning, self.options.drain_timeout) and now() + found.together < min(self.ends, default=0):
            what = f"{found.together:.0f} s together, {found.apart:.0f} s one after the other"
            sys.stderr.write(f"blendrun: {plural(len(waiting), 'batch', 'batches')} to join a job: {what}\n")
            self._join = waiting


def _pays(found: Joining, planning: float, drain: float) -> bool:
    """Whether a job is shorter with the other one in it, and the way there.

    While what the engine has is answered it works on as before, but for the last answers, beside which seats are empty.
    """
    stop = min(found.longest, drain) + (_LOAD_S if max(found.longest, found.held) > drain else 0.0)
    saved = found.apart - found.together
    return saved > stop + planning and saved > _LEAST_PART * found.apart


def predicted(options: RunOptions, waiting: Sequence[Newcomer]) -> Joining | None:
    """As this machine's plans have it."""
    (job,) = (Path(name) for name in options.inputs)
    rest, new = job.with_name("rest.jsonl"), job.with_name("newcomers.jsonl")
    later = tuple(prefix_of(each.place) for each in waiting)
    try:
        if (asked := asked_of(options, rest, new, later)) is None:
            return None
        left = _write_rest(job, options.output_path, rest)
        join([(each.place, each.content) for each in waiting], new)
        found = answer_of(start(asked))
        status = statuses.read(StateFolder(options.output_path).status)
        if found is None or status is None or not left:
            return found
        # All that the engine has is answered first, what waits in its queue too, and shares nothing with newcomers.
        held = min(status.blendrun.in_flight / left, 1.0)
        together = found.apart - (1.0 - held) * (found.apart - found.together)
        return replace(found, together=together, held=held * found.first)
    except (OSError, subprocess.SubprocessError, BlendrunError):
        return None


def _write_rest(job: Path, output: Path, rest: Path) -> int:
    """Lines of a job that have no answer yet, and how many they are. Raises OSError, InputMissingError."""
    tail = JournalTail(StateFolder(output).journal, errors=True)
    answered = {orjson.loads(text)["custom_id"] for text in tail.new()}
    with job.open("rb") as lines, rest.open("wb") as file:
        left = [text for text in lines if orjson.loads(text)["custom_id"] not in answered]
        file.writelines(left)
    return len(left)
