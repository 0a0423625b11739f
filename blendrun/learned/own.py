"""How fast one engine of this machine is: what its plans go by, and what its runs leave to later ones.

Which evidence counts: what runs taught, where the last of them is younger than the calibration of the card, else the
calibration; without either, the rates. Learning begins where it finds the card, so a calibration is what the first runs
behind it are weighed against, and a new one makes them begin anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np

from blendrun.cost.base import LearnedSteps, Machine
from blendrun.database import learns
from blendrun.learned.base import EngineKey, Floats, Known
from blendrun.learned.fit import Experts, drifted, enough, first_belief, learned, sure
from blendrun.learned.sample import StepSample, joined
from blendrun.learned.store import StepStore
from blendrun.models.card import ModelCard
from blendrun.simulate.base import StepTime
from blendrun.simulate.steptime import CONSTANTS, modelled_step_time, step_time

# Of constants that no rate tells: a row beside its token, and a step beside so many tokens.
_STEP_TOKENS = 25.0
# And attention of a prompt of so many tokens beside its products.
_LONG = 4096.0


@dataclass(frozen=True, slots=True)
class OwnSpeed:
    """One model on one kind of engine of this machine.

    machine: with what was learned, where that counts. card_step: constants by the card alone. step: those that times
    are predicted with.
    """

    key: EngineKey
    model: ModelCard
    machine: Machine
    card_step: StepTime
    step: StepTime

    def record(self, samples: Iterable[StepSample], now: float) -> Known | None:
        """Learn from the steps of a run, for later ones; None where they are too few. now: seconds since 1970.

        Raises StepsUnavailableError.
        """
        evidence = joined(samples)
        if not learns() or not enough(evidence):
            return None
        units, weights = _units(self.model, self.machine, self.key.gpus), self.card_step.weights
        experts = Experts(self.card_step.experts / weights if weights else 0.0, self.card_step.expert_miss)

        def change(before: Known | None) -> Known:
            counts = before is not None and before.updated >= _calibrated(self.machine, self.card_step)
            if before is None or not counts:
                measured = "measured" in self.card_step.origin.values()
                belief, runs, seconds = first_belief(_values(self.card_step), units, measured=measured), 0, 0.0
            else:
                belief, runs, seconds = drifted(before.belief, units, now - before.updated), before.runs, before.seconds
            after, error = learned(belief, units, evidence, experts)
            return Known(after, runs + 1, now, error, seconds + evidence.total)

        return StepStore.open().update(self.key, change)


def card_speed(key: EngineKey, model: ModelCard, machine: Machine) -> OwnSpeed:
    """What the card of an engine's machine says. Raises UsageError for one that gives no times."""
    step = step_time(model, machine, gpus=key.gpus)
    return OwnSpeed(key, model, machine, step, step)


def own_speed(key: EngineKey, model: ModelCard, machine: Machine) -> OwnSpeed:
    """What is known of an engine of this machine. machine: by its card.

    Raises StepsUnavailableError, and UsageError for a card that gives no times.
    """
    by_card = card_speed(key, model, machine)
    found = StepStore.open().recall(key) if learns() else None
    if found is None or found.updated < _calibrated(machine, by_card.step):
        return by_card
    told = tuple(name for name, known in zip(CONSTANTS, sure(found.belief), strict=True) if known)
    figures = LearnedSteps(
        seconds=dict(zip(CONSTANTS, found.belief.constants.tolist(), strict=True)),
        told=told,
        digest=model.digest,
        gpus=key.gpus,
        runs=found.runs,
        date=datetime.fromtimestamp(found.updated, UTC).isoformat(timespec="seconds"),
        error=found.error,
    )
    taught = replace(machine, learned=figures)
    return OwnSpeed(key, model, taught, by_card.step, step_time(model, taught, gpus=key.gpus))


def _values(step: StepTime) -> Floats:
    return np.array([getattr(step, name) for name in CONSTANTS], dtype=np.float64)


def _units(model: ModelCard, machine: Machine, gpus: int) -> Floats:
    """What each constant may be like: seconds, f64 (8,), none of them 0."""
    step = modelled_step_time(model, machine, gpus=gpus)
    otherwise = {"step": _STEP_TOKENS * step.prefill_token, "prefill_square": step.prefill_token / _LONG}
    values = [getattr(step, name) or otherwise.get(name, 0.0) or step.decode_token for name in CONSTANTS]
    return np.array(values, dtype=np.float64)


def _calibrated(machine: Machine, step: StepTime) -> float:
    """When the constants of a card were measured, seconds since 1970; 0 where they were not, or nobody says."""
    figures = machine.card.step
    if figures is None or figures.date is None or "measured" not in step.origin.values():
        return 0.0
    try:
        return datetime.fromisoformat(figures.date).timestamp()
    except ValueError:
        return 0.0
