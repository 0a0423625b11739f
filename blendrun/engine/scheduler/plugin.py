"""Entry point of group `sglang.srt.plugins`: reads what blendrun asks of the scheduler, and hooks that in."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from blendrun.engine.base import SchedulerSettings, budget_policy
from blendrun.engine.cascade import register as cascade
from blendrun.engine.cascade.register import CASCADE_VARIABLE
from blendrun.engine.scheduler import dead_end
from blendrun.engine.scheduler.budget import StepBudget
from blendrun.engine.scheduler.estimates import Estimates
from blendrun.engine.scheduler.gate import Gate
from blendrun.engine.scheduler.hooks import Hook, features_missing, install
from blendrun.engine.scheduler.next_use import NextUse
from blendrun.engine.scheduler.occupancy import Occupancy
from blendrun.engine.scheduler.planned import take_corrections
from blendrun.engine.scheduler.reserve import Reservation
from blendrun.engine.scheduler.sides import Sides
from blendrun.engine.scheduler.step_log import StepLog
from blendrun.engine.sglang_names import has, since

# SchedulerSettings as JSON; empty or absent where nothing is asked.
SETTINGS_VARIABLE = "BLENDRUN_SCHEDULER"
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
        if settings.estimates is not None:
            take_corrections(Estimates(Path(settings.estimates)))
        install(hooks(settings), os.environ.get(PROOFS_VARIABLE))


def hooks(settings: SchedulerSettings) -> list[Hook]:
    """The hooks that `settings` ask for; imports nothing of SGLang's."""
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
    if settings.step_log is not None:
        chosen += StepLog(settings.step_log, budget, every_rank=settings.log_every_rank).hooks()
    return chosen


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
