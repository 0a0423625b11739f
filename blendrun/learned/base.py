"""The nouns of what runs teach about the machine: whose steps they were, and what is believed of their constants."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class EngineKey:
    """Whose steps are alike: one model on one kind of engine of one machine.

    host: the machine's name. platform: "cpu" or "gpu". device: what its GPUs are called. model: `ModelCard.digest`.
    gpus: devices of one engine. threads, replicas: on a CPU, of each engine, and engines side by side, which share it;
    0 on a GPU. arguments: of the engine, those that change how long a step takes, as JSON. name: of the model, for
    people alone.
    """

    host: str
    platform: str
    device: str
    model: str
    gpus: int
    threads: int
    replicas: int
    arguments: str
    name: str = ""

    @property
    def text(self) -> str:
        """One line that tells engines apart."""
        parts = (self.host, self.platform, self.device, self.model, self.gpus, self.threads, self.replicas)
        return json.dumps([*parts, self.arguments], ensure_ascii=False)


@dataclass(frozen=True, slots=True, eq=False)
class Belief:
    """What is believed of the constants: f64 (8,), seconds, by `blendrun.simulate.steptime.CONSTANTS`.

    covariance: how surely, f64 (8, 8), seconds squared.
    """

    constants: Floats
    covariance: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """A belief with its past. runs: that had a part in it. updated: seconds since 1970, of the last one.

    error: mean |error| of that run's steps, weighted by their time, once it was learned from. seconds: of all steps.
    """

    belief: Belief
    runs: int
    updated: float
    error: float
    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """Steps of a run. steps: f64 (S, 5), a row a step as `blendrun.simulate.price.step_prices` has them. seconds: f64
    (S,), that each took. weight: f64 (S,), how many steps of the run each stands for."""

    steps: Floats
    seconds: Floats
    weight: Floats

    @property
    def total(self) -> float:
        """Seconds of all steps that these stand for."""
        return float(self.seconds @ self.weight)
