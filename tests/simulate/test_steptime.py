"""Which models a calibrated card has step times for, and what kind of number they are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from blendrun.cost.base import Machine, StepFigures
from blendrun.cost.hardware import load_hardware, machine
from blendrun.models.cards import load_card
from blendrun.simulate.steptime import step_time

LLAMA = load_card("llama-3-8b")
FOUND = StepFigures("llama-3-8b", 1e-3, 4e-6, 2e-4, 4e-5, 4e-5, 6e-10, 6e-8, 6e-3, 0.02)


def on(figures: StepFigures) -> Machine:
    return machine(replace(load_hardware("h100-sxm"), step=figures))


@pytest.mark.parametrize("alias", ["llama-3-8b", "8cde5ca8380496c9a6cc7ef3a8b46a0372a1d920"])
def test_a_calibration_counts_for_its_model_under_any_name(alias: str) -> None:
    step = step_time(replace(LLAMA, alias=alias), on(replace(FOUND, digest=LLAMA.digest)))
    assert (step.step, step.weights) == (1e-3, 6e-3)
    assert set(step.origin.values()) == {"measured"}


def test_a_calibration_of_another_model_of_the_same_name_does_not_count() -> None:
    smaller = replace(LLAMA, layers=16)
    step = step_time(smaller, on(replace(FOUND, digest=LLAMA.digest)))
    assert step.step == 0
    assert "measured" not in step.origin.values()


def test_a_calibration_counts_for_as_many_devices_as_held_the_model() -> None:
    two = machine(replace(load_hardware("h100-sxm"), step=replace(FOUND, gpus=2)), 2)
    assert (step_time(LLAMA, two).step, step_time(LLAMA, two, gpus=1).step) == (1e-3, 0)


def test_figures_without_a_digest_count_by_name_as_they_always_did() -> None:
    assert step_time(LLAMA, on(FOUND)).step == 1e-3
    assert step_time(replace(LLAMA, alias="mine"), on(FOUND)).step == 0
