"""The nouns of the cost model: a machine's rates, and what the nodes of a tree demand of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Origin = Literal["datasheet", "measured", "prior"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a hardware card: SI units, where it is from (a page, a command), and what kind of number it is."""

    value: float
    source: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class StepFigures:
    """Constants of an engine step for one model, as `blendrun calibrate` fitted them, in seconds.

    `blendrun.simulate.base.StepTime` has their meaning. fit_error: mean relative error over the batches measured.
    digest: `ModelCard.digest` of that model; None in cards of earlier versions, which go by its name alone. gpus: that
    held one copy of it. date: ISO 8601, UTC; None in cards of earlier versions.
    """

    model: str
    step_seconds: float
    row_seconds: float
    request_seconds: float
    prefill_token_seconds: float
    decode_token_seconds: float
    prefill_square_seconds: float
    kv_token_seconds: float
    weights_seconds: float
    fit_error: float
    digest: str | None = None
    gpus: int = 1
    date: str | None = None


@dataclass(frozen=True, slots=True)
class LearnedSteps:
    """Constants of an engine step for one model as earlier runs on this machine taught them (`blendrun.learned`).

    seconds: by their names in `blendrun.simulate.base.StepTime`. told: those that the runs told from the others; the
    rest stay in proportion to the card. digest, gpus: as in `StepFigures`. runs: so many. date: of the last one, ISO
    8601, UTC. error: mean relative error of that one's steps.
    """

    seconds: Mapping[str, float]
    told: tuple[str, ...]
    digest: str
    gpus: int
    runs: int
    date: str
    error: float

    @property
    def sentence(self) -> str:
        """Where the constants are from, for people."""
        runs = "1 run" if self.runs == 1 else f"{self.runs:,} runs"
        return f"learned from {runs} on this machine, last on {self.date[:10]}"


@dataclass(frozen=True, slots=True)
class HardwareCard:
    """One device. Peak and achieved rates stand apart: densities and comparisons with the paper take the peak, times
    take the achieved (docs/paper.md#peak-and-achieved-rates).

    memory: bytes. peak_flops, achieved_flops: FLOP/s of dense 16-bit matrix products (float32 on a CPU).
    peak_bandwidth, achieved_bandwidth: byte/s of device memory; achieved: by decode attention.
    value_bytes: bytes of a weight and of a cached value as the runtime holds them here (2, or 4 on a CPU).
    matches: what devices of this card are called, as regular expressions that the whole name fits: the product as the
        driver has it without "NVIDIA ", "1002:" and the PCI device id of an AMD device, "accelerator_type:" and Ray's.
    host_bandwidth: byte/s from the host's memory to the device; None where nobody said.
    mixed_attention: share by which decode attention takes longer in a pass that prefills too, with the attention
        backend that SGLang chooses for the device; None where nobody has measured it, which counts as 0.
    step: what a calibration with one model found. host: name of the machine that was calibrated. device: of its GPU.
    """

    name: str
    title: str
    kind: Literal["gpu", "cpu"]
    memory: Figure
    peak_flops: Figure
    peak_bandwidth: Figure
    achieved_flops: Figure
    achieved_bandwidth: Figure
    value_bytes: int = 2
    matches: tuple[str, ...] = ()
    step: StepFigures | None = None
    host: str | None = None
    device: str | None = None
    mixed_attention: Figure | None = None
    host_bandwidth: Figure | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """What one plan runs on: `gpus` equal devices. Rates and memory are sums over them.

    flops: FLOP/s. bandwidth: byte/s. memory: bytes. value_bytes: of a weight and of a cached value.
    learned: where it is this machine, and runs on it have taught how long its steps take.
    """

    card: HardwareCard
    gpus: int
    flops: float
    bandwidth: float
    memory: float
    value_bytes: int
    learned: LearnedSteps | None = None

    def some(self, gpus: int) -> Machine:
        """`gpus` of its devices."""
        part = gpus / self.gpus
        return replace(
            self,
            gpus=gpus,
            flops=part * self.flops,
            bandwidth=part * self.bandwidth,
            memory=part * self.memory,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Demand:
    """What each of the K nodes of a tree asks for on its own, without its sub-tree (sums: `PrefixTree.subtree_sum`).

    compute_tokens: f64 (K,), tokens to be computed: the node's segment, and on a leaf its expected output tokens.
    flops: f64 (K,), arithmetic of those tokens: layers, output head and the attention of prefill. The attention of
        decoding is left out: its arithmetic hides under its reads.
    kv_bytes: f64 (K,), bytes of KV cache that decoding reads; on leaves only, unless decode kernels share prefixes.
        The paper's Mem times the bandwidth.
    shares_reads: whether they do.
    """

    compute_tokens: NDArray[np.float64]
    flops: NDArray[np.float64]
    kv_bytes: NDArray[np.float64]
    shares_reads: bool = False
