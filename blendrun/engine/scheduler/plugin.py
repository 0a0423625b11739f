"""Entry point of group `sglang.srt.plugins`: reads what blendrun asks of the scheduler, and hooks that in."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from blendrun.engine.base import SchedulerSettings, budget_policy
from blendrun.engine.scheduler import dead_end
from blendrun.engine.scheduler.budget import StepBudget
from blendrun.engine.scheduler.estimates import Estimates
from blendrun.engine.scheduler.gate import Gate
from blendrun.engine.scheduler.hooks import Hook, features_missing, install
from blendrun.engine.scheduler.next_use import NextUse
from blendrun.engine.scheduler.planned import take_corrections
from blendrun.engine.scheduler.reserve import Reservation
from blendrun.engine.scheduler.step_log import StepLog

# SchedulerSettings as JSON; empty or absent where nothing is asked.
SETTINGS_VARIABLE = "BLENDRUN_SCHEDULER"
# How the files begin that hooks leave once they ran.
PROOFS_VARIABLE = "BLENDRUN_SCHEDULER_PROOFS"

# What it means that a hook left no proof of itself.
_MISSED = {
    "gate": "the admission gate did not take: answers are right, siblings may compute a shared prefix again",
    "budget": "the step budget did not take: answers are right, steps are as large as SGLang makes them",
    "reserve": "the reservation did not take: answers are right, SGLang admits by its own guess at their lengths",
    "next_use": "eviction by next use did not take: answers are right, the cache drops what was used longest ago",
    "dead_end": "the guard of dead ends did not take: a grammar that allows no token ends the engine",
    "step_log": "the step log did not take: answers are right, there is no record of the engine's steps",
}


def register() -> None:
    """Hook in what the environment asks for. Raises nothing that SGLang would not log and go on."""
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
        chosen += Reservation().hooks()
    if settings.gate:
        chosen += Gate().hooks()
    if budget is not None:
        chosen += budget.hooks()
    if settings.next_use:
        chosen += NextUse().hooks()
    if settings.step_log is not None:
        chosen += StepLog(settings.step_log, budget, every_rank=settings.log_every_rank).hooks()
    return chosen


def notes(settings: SchedulerSettings, proofs: str) -> list[str]:
    """A sentence for each feature that was asked for and did not take, after an engine's first request."""
    return [_MISSED[feature] for feature in features_missing(hooks(settings), proofs)]
