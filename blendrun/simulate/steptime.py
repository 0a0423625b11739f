"""The constants of a step's time for a model on a machine: learned from runs, measured, or from the cost model."""

from __future__ import annotations

import math
from dataclasses import replace

from blendrun.cost.base import Figure, LearnedSteps, Machine, StepFigures
from blendrun.cost.step import weight_bytes
from blendrun.errors import UsageError
from blendrun.models.card import ModelCard
from blendrun.simulate.base import StepOrigin, StepTime

CONSTANTS = (
    *("prefill_token", "decode_token", "prefill_square", "kv_token", "weights"),
    *("row", "step", "request"),
)
_WEAKEST_FIRST: tuple[StepOrigin, ...] = ("prior", "model", "measured")


def step_time(model: ModelCard, machine: Machine, *, gpus: int | None = None) -> StepTime:
    """Seconds of a step of one replica on `gpus` of the machine's devices (`KvPool.gpus`; None for all of them).

    What runs of this model on as many devices of this machine taught (`Machine.learned`) goes first; a card that was
    calibrated with this model on as many devices has its fitted constants (by whatever name the model was given:
    `ModelCard.digest`); all others follow from the rates:
    two FLOP a parameter and token, half of the pairs of the attention triangle (`cost.formulas`), one read of the
    cache a decode step and of the weights a step. What mixing costs decode attention is the card's in any case, and
    nothing where the card does not say. What rates do not tell (seconds a step, seconds a row) is 0 then.
    Raises UsageError, naming the rate, where one is missing or 0.
    """
    devices = machine.gpus if gpus is None else gpus
    for name in ("flops", "bandwidth"):
        rate = getattr(machine, name)
        if not (math.isfinite(rate) and rate > 0):
            raise UsageError(f"{machine.card.name}: a {name} of {rate:g} a second gives no time; fix the hardware card")
    fitted, learned = machine.card.step, machine.learned
    if fitted is not None and _is_of(fitted, model) and devices == fitted.gpus:
        found = _fitted(fitted, model)
    else:
        found = _modelled(model, machine, devices / machine.gpus)
    if learned is not None and (learned.digest, learned.gpus) == (model.digest, devices):
        found = _learned(found, learned, model)
    mixed = machine.card.mixed_attention
    if mixed is None:
        return found
    return replace(found, mixed=mixed.value, origin={**found.origin, "mixed": _origin(mixed)})


def modelled_step_time(model: ModelCard, machine: Machine, *, gpus: int | None = None) -> StepTime:
    """The same by the rates alone, whatever was measured or learned."""
    return step_time(model, replace(machine, card=replace(machine.card, step=None), learned=None), gpus=gpus)


def times_rest_on(step: StepTime) -> StepOrigin:
    """What kind of number a predicted time is: learned where anything is, else the weakest of what it rests on."""
    origins = set(step.origin.values())
    if "learned" in origins:
        return "learned"
    return next((origin for origin in _WEAKEST_FIRST if origin in origins), "model")


def _learned(otherwise: StepTime, learned: LearnedSteps, model: ModelCard) -> StepTime:
    missing, miss = _experts(model, learned.seconds["weights"])
    told: dict[str, StepOrigin] = dict.fromkeys(learned.told, "learned")
    return StepTime(**learned.seconds, experts=missing, expert_miss=miss, origin={**otherwise.origin, **told})


def _is_of(figures: StepFigures, model: ModelCard) -> bool:
    return figures.model == model.alias if figures.digest is None else figures.digest == model.digest


def _fitted(figures: StepFigures, model: ModelCard) -> StepTime:
    values = {name: getattr(figures, f"{name}_seconds") for name in CONSTANTS}
    for name, value in values.items():
        if not (math.isfinite(value) and value >= 0):
            raise UsageError(f"step.{name}_seconds of {value:g} for {model.alias} is no time; calibrate again")
    if values["prefill_token"] == 0 or values["kv_token"] == 0:
        raise UsageError(f"the step constants for {model.alias} have tokens that take no time; calibrate again")
    missing, miss = _experts(model, figures.weights_seconds)
    return StepTime(**values, experts=missing, expert_miss=miss, origin=dict.fromkeys(CONSTANTS, "measured"))


def _modelled(model: ModelCard, machine: Machine, part: float) -> StepTime:
    flops, bandwidth = machine.flops * part, machine.bandwidth * part
    pair = model.attention_flops_per_pair / flops
    layer_bytes = model.kv_bytes_per_token(machine.value_bytes) / model.layers
    full, window = model.full_attention_layers, model.sliding_window
    # A sliding window is taken to be full: its attention and its reads are then the same for every token.
    seen = (model.layers - full) * window.window if window else 0
    weights = weight_bytes(model, machine.value_bytes, math.inf) / bandwidth
    missing, miss = _experts(model, weights)
    compute, reading = _origin(machine.card.achieved_flops), _origin(machine.card.achieved_bandwidth)
    return StepTime(
        prefill_token=2 * model.layer_parameters_active / flops + pair * seen,
        decode_token=2 * (model.layer_parameters_active + model.head_parameters) / flops,
        prefill_square=full * pair / 2,
        kv_token=full * layer_bytes / bandwidth,
        weights=weights,
        experts=missing,
        expert_miss=miss,
        row=seen * layer_bytes / bandwidth,
        request=2 * model.head_parameters / flops,
        origin=dict.fromkeys(("prefill_token", "decode_token", "prefill_square", "request"), compute)
        | dict.fromkeys(("kv_token", "weights", "row"), reading)
        | {"step": "prior"},
    )


def _experts(model: ModelCard, weights: float) -> tuple[float, float]:
    """`weight_bytes` as one term: at t tokens a mixture of experts saves the first number times the second ** t."""
    total, active = model.layer_parameters_total, model.layer_parameters_active
    if model.moe is None or total <= active:
        return 0.0, 0.0
    experts, chosen = model.moe.experts, model.moe.experts_per_token
    passed_by = (total - active) * experts / (experts - chosen)
    return weights * passed_by / (total + model.head_parameters), 1 - chosen / experts


def _origin(rate: Figure) -> StepOrigin:
    """A time that follows from a rate is the model's, or a guess where the rate is one."""
    return "prior" if rate.origin == "prior" else "model"
