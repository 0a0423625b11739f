"""Entry point of group `sglang.srt.plugins`: reads what blendrun asks of the scheduler, and hooks that in."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from blendrun.engine.base import ConstantStep, SchedulerSettings, budget_policy
from blendrun.engine.cascade import register as cascade
from blendrun.engine.cascade.register import CASCADE_VARIABLE
from blendrun.engine.scheduler import dead_end
from blendrun.engine.scheduler.budget import StepBudget
from blendrun.engine.scheduler.estimates import Estimates
from blendrun.engine.scheduler.gate import Gate
from blendrun.engine.scheduler.hooks import Hook, Switchboard, features_missing, install
from blendrun.engine.scheduler.next_use import NextUse, forget_marks
from blendrun.engine.scheduler.occupancy import Occupancy
from blendrun.engine.scheduler.planned import take_corrections
from blendrun.engine.scheduler.reserve import Reservation
from blendrun.engine.scheduler.sides import Sides
from blendrun.engine.scheduler.step_log import StepLog
from blendrun.engine.sglang_names import FLUSH, has, since
from blendrun.files import write_atomically

logger = logging.getLogger(__name__)

# SchedulerSettings as JSON; empty or absent where nothing is asked.
SETTINGS_VARIABLE = "BLENDRUN_SCHEDULER"
# The file that says it of the next job, of an engine that is kept for several; absent where it has one.
NEXT_VARIABLE = "BLENDRUN_SCHEDULER_NEXT"
# How the files begin that hooks leave once they ran.
PROOFS_VARIABLE = "BLENDRUN_SCHEDULER_PROOFS"

# What it means that a hook left no proof of itself.
_MISSED = {
    "gate": "the admission gate did not take: answers are right, siblings may compute a shared prefix again",
    "budget": "the step budget did not take: answers are right, steps are as large as SGLang makes them",
    "sides": "the choice between a blend's sides did not take: answers are right, and come in as they were handed over",
    "reserve": "the reservation did not take: answers are right, SGLang admits by its own guess at their lengths",
    "next_use": "eviction by next use did not take: answers are right, the cache drops what was used longest ago",
    "dead_end": "the guard of dead ends did not take: a grammar that allows no token ends the engine",
    "step_log": "the step log did not take: answers are right, there is no record of the engine's steps",
}


def register() -> None:
    """Hook in what the environment asks for. Raises nothing that SGLang would not log and go on."""
    if os.environ.get(CASCADE_VARIABLE) and has("cascade"):
        cascade.register()
    asked = os.environ.get(SETTINGS_VARIABLE)
    if asked:
        settings = msgspec.json.decode(asked, type=SchedulerSettings)
        proofs, following = os.environ.get(PROOFS_VARIABLE), os.environ.get(NEXT_VARIABLE)
        if following:
            Jobs(Path(following)).install(settings, proofs)
        else:
            _expect(settings)
            install(hooks(settings), proofs)


class Jobs:
    """One job after the other on an engine that is kept. Between two of them the runner leaves a file with what the
    scheduler does for the next one, and asks for a flush of the cache, which reaches all ranks of a model at the same
    step, once nothing runs. The cache itself stays: what the next job shares with the one before is found in it.
    """

    def __init__(self, following: Path) -> None:
        self._following = following
        # All that any job may ask for.
        everything = SchedulerSettings(budget=ConstantStep(1), reserve=True, next_use=True, sides=True, step_log="")
        self._flush = Hook("kept", FLUSH, self.begin_next, "around", warmed=False)
        targets = [hook.target for hook in (*hooks(everything), self._flush)]
        self._board = Switchboard(targets)
        self._now: _Asked | None = None
        # Of the file that was taken last: a flush that comes without another one is meant as such.
        self._last: tuple[int, int] | None = None

    def install(self, settings: SchedulerSettings, proofs: str | None) -> None:
        self._board.install([*self._begin(settings).hooks, self._flush], proofs)

    def begin_next(self, original: Callable[..., Any], scheduler: Any, *args: Any, **kwargs: Any) -> Any:
        """In the place of SGLang's `flush_cache` where another job waits and nothing runs."""
        left = _identity(self._following)
        if left in (None, self._last) or not scheduler.is_fully_idle():
            return original(scheduler, *args, **kwargs)
        self._last = left
        try:
            forget_marks(scheduler.tree_cache)
        except Exception:
            logger.exception("blendrun: the cache of the job before cannot be kept")
            flushed = original(scheduler, *args, **kwargs)
        else:
            flushed = True
        if flushed:
            self._switch()
        return flushed

    def _switch(self) -> None:
        try:
            asked = self._begin(msgspec.json.decode(self._following.read_bytes(), type=SchedulerSettings))
            self._board.put([*asked.hooks, self._flush])
            _taken(self._following).touch()
        except Exception:
            # This hook must not be turned off. Who left the file ends an engine that does not do what it says.
            logger.exception("blendrun: what the next job asks for cannot be had; SGLang goes on by itself")
            self._board.put([self._flush])
            self._end_log()
            self._now = None
            take_corrections(None)
            with suppress(OSError):
                _failed(self._following).touch()

    def _begin(self, settings: SchedulerSettings) -> _Asked:
        """Raises what opening a job's files raises; nothing is changed then."""
        corrections = _corrections(settings)
        asked = _asked(settings)
        self._end_log()
        take_corrections(corrections)
        self._now = asked
        return asked

    def _end_log(self) -> None:
        if self._now is not None and self._now.log is not None:
            self._now.log.close()


def leave_next(settings: SchedulerSettings) -> None:
    """For the schedulers below this process, which read it at the next flush.

    Raises OSError, OutputUnavailableError.
    """
    following = Path(os.environ[NEXT_VARIABLE])
    for left in (_taken(following), _failed(following)):
        left.unlink(missing_ok=True)
    write_atomically(following, msgspec.json.encode(settings))


def next_taken() -> bool:
    """Whether the schedulers do what was left for them last, after the flush."""
    following = Path(os.environ[NEXT_VARIABLE])
    return _taken(following).exists() and not _failed(following).exists()


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from the one that was there before; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _taken(following: Path) -> Path:
    """Left by a scheduler that does what `following` says."""
    return following.with_suffix(".taken")


def _failed(following: Path) -> Path:
    """Left by one of several ranks that could not."""
    return following.with_suffix(".failed")


def _expect(settings: SchedulerSettings) -> None:
    """Go by what this job's runner corrects, if it does."""
    take_corrections(_corrections(settings))


def _corrections(settings: SchedulerSettings) -> Estimates | None:
    return None if settings.estimates is None else Estimates(Path(settings.estimates))


@dataclass(frozen=True, slots=True)
class _Asked:
    """The hooks of a job. log: of its steps, if there is one."""

    hooks: list[Hook]
    log: StepLog | None


def hooks(settings: SchedulerSettings) -> list[Hook]:
    """The hooks that `settings` ask for; imports nothing of SGLang's."""
    return _asked(settings).hooks


def _asked(settings: SchedulerSettings) -> _Asked:
    budget = None if settings.budget is None else StepBudget(budget_policy(settings.budget))
    chosen = dead_end.hooks() if settings.dead_ends else []
    # Of two hooks around one function the later is the outer one: what may not come in need not be weighed.
    if settings.reserve:
        chosen += Reservation(in_turn=not settings.sides).hooks()
    gate = Gate() if settings.gate else None
    if gate is not None:
        chosen += gate.hooks()
    if settings.sides or settings.occupancy is not None:
        chosen += Sides(_occupancy(settings.occupancy), settings.sides, gate).hooks()
    if budget is not None:
        chosen += budget.hooks()
    if settings.next_use and has("next_use"):
        chosen += NextUse().hooks()
    log = None
    if settings.step_log is not None:
        log = StepLog(settings.step_log, budget, every_rank=settings.log_every_rank)
        chosen += log.hooks()
    return _Asked(chosen, log)


def _occupancy(path: str | None) -> Occupancy | None:
    """Where the runner is told what runs; None where it is not to be told, or cannot be."""
    try:
        return None if path is None else Occupancy(Path(path))
    except (OSError, ValueError):
        return None


def missing(settings: SchedulerSettings, proofs: str) -> list[str]:
    """Features that were asked for and did not take, after an engine's first request."""
    return features_missing(hooks(settings), proofs)


def notes(settings: SchedulerSettings, missed: Iterable[str]) -> list[str]:
    """A sentence for each feature that was asked for and is off. missed: those that did not take."""
    found = [_MISSED[feature] for feature in missed]
    if settings.next_use and not has("next_use"):
        found.append(
            f"eviction by next use takes SGLang {since('next_use')}: the cache drops what was used longest ago"
        )
    return found
