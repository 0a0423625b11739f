"""Machines whose constants are known, and what a sweep would measure on them."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from blendrun.calibrate.base import Calibration, Constants, Load, Observation, Point, Probe, Rates
from blendrun.calibrate.design import Room, probes
from blendrun.calibrate.fit import predict
from blendrun.calibrate.schedule import Policy, schedule
from blendrun.cost.base import StepFigures

# Like two cores with a small model: a step costs much, the weights stay hidden.
CPU = Constants(
    prefill_token=1.4e-3,
    prefill_square=4e-8,
    kv_token=6e-6,
    weights=0.0,
    row=2.5e-3,
    step=5e-2,
    request=4e-3,
    round_trip=1.5e-2,
)
# Like a large GPU with an 8B model: a decode step is one pass over the weights and the KV reads.
GPU = Constants(
    prefill_token=4e-5,
    prefill_square=6e-10,
    kv_token=6e-8,
    weights=6e-3,
    row=4e-6,
    step=1e-3,
    request=2e-4,
    round_trip=2e-2,
)
# An A100 with 40 GB and the same model: prefill is slow, weights and cache are read at a third of the speed.
A100 = Constants(
    prefill_token=1.0e-4,
    prefill_square=2e-9,
    kv_token=1.3e-7,
    weights=1.3e-2,
    row=1.2e-5,
    step=4e-3,
    request=5e-4,
    round_trip=3e-2,
)
CPU_ROOM = Room(kv_tokens=32_768, context_length=8192, max_running=32)
GPU_ROOM = Room(kv_tokens=400_000, context_length=131_072, max_running=512)


def observe(probe: Probe, policy: Policy, constants: Constants, noise: float = 0.0, seed: int = 0) -> Observation:
    """What measuring a probe gives on a machine that is as its constants say, within `noise` (relative, sigma)."""
    cached = {ask: 0 if probe.fresh or probe.short is None else ask.prompt - 1 for ask in probe.asks}
    loads = [Load(ask.prompt, cached[ask], ask.output) for ask in probe.asks]
    shorter = [] if probe.short is None else [dataclasses.replace(load, output=probe.short) for load in loads]
    found = Observation(
        probe.name,
        1.0,
        schedule(loads, policy),
        schedule(shorter, policy),
        int(probe.short is None),
        probe.held_out,
    )
    error = np.random.default_rng((seed, len(loads), loads[0].prompt)).normal(0.0, noise) if noise else 0.0
    return dataclasses.replace(found, seconds=predict(found, constants) * (1.0 + error))


def sweep(
    platform: Literal["cpu", "gpu"],
    constants: Constants,
    noise: float = 0.0,
    seed: int = 0,
    *,
    quick: bool = False,
    room: Room | None = None,
    chunk: int | None = None,
) -> list[Observation]:
    """What a sweep measures on a machine of known constants. room, chunk: of the engine; None for a usual one."""
    room = room or (GPU_ROOM if platform == "gpu" else CPU_ROOM)
    policy = Policy(chunk=chunk or (8192 if platform == "gpu" else 4096), max_running=room.max_running)
    return [observe(probe, policy, constants, noise, seed) for probe in probes(platform, room, quick=quick)]


def calibration(**changes: object) -> Calibration:
    """A finished calibration of the small machine."""
    found = Calibration(
        model="smollm2-135m",
        platform="cpu",
        threads=2,
        date="2026-07-01T12:00:00+00:00",
        versions={"sglang": "0.5.23", "torch": "2.14.1"},
        rates=Rates(1.2e11, 1.8e10, 9e9, 1.7e10, "cpu", "torch"),
        step=StepFigures(
            model="smollm2-135m",
            step_seconds=CPU.step,
            row_seconds=CPU.row,
            request_seconds=CPU.request,
            prefill_token_seconds=CPU.prefill_token,
            decode_token_seconds=CPU.prefill_token,
            prefill_square_seconds=CPU.prefill_square,
            kv_token_seconds=CPU.kv_token,
            weights_seconds=0.0,
            fit_error=0.02,
        ),
        round_trip_seconds=CPU.round_trip,
        points=(Point("prefill 1 x 64", 0.18, 0.19, 0.0556),),
        held_out=(Point("mix of 48", 20.0, 20.6, 0.03),),
        worst_error=0.06,
        seconds=150.0,
    )
    return dataclasses.replace(found, **changes)  # type: ignore[arg-type]
