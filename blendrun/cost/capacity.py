"""How the devices divide among replicas of the model, and how much KV cache each replica has room for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from blendrun.cost.base import Machine
from blendrun.cost.reserve import default_graph_rows, engine_chunk, free_bytes, static_fraction
from blendrun.errors import UsageError
from blendrun.models.card import ModelCard

# A pool smaller than this serves nothing but the shortest requests.
SMALLEST_POOL = 2048
# Of a CPU's memory, which the system and the runner use too.
_CPU_SHARE = 0.9
# Prefill tokens of a step below which SGLang keeps no less free.
_LEAST_CHUNK = 2048


@dataclass(frozen=True, slots=True)
class KvPool:
    """`replicas` copies of the model, each on `gpus` devices with a pool of `tokens` cached tokens.

    token_bytes: bytes of KV cache of one token, counted once however many devices hold a copy.
    fraction: share of what is free of a device that weights and pool get.
    """

    replicas: int
    gpus: int
    tokens: int
    token_bytes: int
    fraction: float

    @property
    def bytes(self) -> int:
        """M (docs/paper.md#the-pool): bytes of KV cache that one replica holds."""
        return self.tokens * self.token_bytes


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """What one engine was told of its size, where that is not what the device's memory leaves. None: not told.

    pool_tokens: of the KV pool. max_running: answers decoding at once. chunk: prefill tokens of a step.
    tensor, stages: ranks of tensor and of pipeline parallelism; tensor None leaves the devices of a replica open.
    shared_reads: least tokens of a prefix that a decode step reads once for all rows that share it, where its attention
        does that at all.
    fraction: share of a device's free memory for weights and pool. graph_rows: that decode graphs are captured for.
    """

    pool_tokens: int | None = None
    max_running: int | None = None
    chunk: int | None = None
    tensor: int | None = None
    stages: int = 1
    fraction: float | None = None
    graph_rows: int | None = None
    shared_reads: int | None = None

    @property
    def devices(self) -> int | None:
        """Of one engine; None where that is open."""
        return None if self.tensor is None else self.tensor * self.stages


NO_LIMITS = EngineLimits()


def kv_pool(model: ModelCard, machine: Machine, limits: EngineLimits = NO_LIMITS) -> KvPool:
    """The pools of a model on a machine (docs/paper.md#the-pool).

    A replica has the devices that `limits` gives it. Without, a model that fits one device gets a replica on each; else
    all devices together hold one copy (tensor parallel).
    Tokens of a model with sliding windows are counted as if no window were full: the least that fits.
    Raises UsageError where it does not fit, with what is missing and what to do, and where devices are left over.
    """
    if limits.fraction is not None and not 0 < limits.fraction <= 1:
        raise UsageError(f"{limits.fraction:g} is no share of the memory: give a number above 0 and up to 1")
    if machine.gpus % (limits.devices or 1):
        raise UsageError(
            f"{machine.gpus} x {machine.card.title} do not divide into engines of {limits.devices} devices: "
            f"give a multiple of {limits.devices}"
        )
    for tensor in (1, machine.gpus) if limits.tensor is None else (limits.tensor,):
        one = _Replica(model, machine, limits, tensor)
        if one.fits:
            tokens = limits.pool_tokens or one.tokens
            return KvPool(machine.gpus // one.devices, one.devices, tokens, one.token_bytes, one.fraction)
    raise UsageError(_does_not_fit(one))


@dataclass(frozen=True, slots=True)
class _Replica:
    """One copy of a model on some of a machine's devices. tensor: ranks of tensor parallelism."""

    model: ModelCard
    machine: Machine
    limits: EngineLimits
    tensor: int

    @property
    def devices(self) -> int:
        return self.tensor * self.limits.stages

    @property
    def token_bytes(self) -> int:
        return self.model.kv_bytes_per_token(self.machine.value_bytes)

    @property
    def fraction(self) -> float:
        limits, card = self.limits, self.machine.card
        if limits.fraction is not None or card.kind == "cpu":
            return limits.fraction or _CPU_SHARE
        usual = min(default_graph_rows(card, self.tensor), limits.max_running or math.inf)
        return static_fraction(
            card,
            tensor=self.tensor,
            stages=limits.stages,
            chunk=limits.chunk or engine_chunk(card),
            graph_rows=int(usual) if limits.graph_rows is None else limits.graph_rows,
            latent=self.model.mla is not None,
        )

    @property
    def room(self) -> float:
        """Bytes for weights and pool on the devices of one stage."""
        card = self.machine.card
        free = card.memory.value if card.kind == "cpu" else free_bytes(card, self.devices)
        return self.fraction * self.tensor * free

    @property
    def stage(self) -> float:
        """Share of the layers that the fullest stage of the pipeline has."""
        return math.ceil(self.model.layers / self.limits.stages) / self.model.layers

    @property
    def weights(self) -> float:
        """Bytes of the fullest stage's weights, all experts."""
        model, value = self.model, self.machine.value_bytes
        if self.limits.stages == 1:
            return value * model.parameters_total
        return value * (self.stage * model.layer_parameters_total + model.embedding_parameters)

    @property
    def held(self) -> float:
        """Bytes that a cached token takes on the devices of a stage.

        Tensor parallelism splits key-value heads, and a latent vector not at all.
        """
        copies = self.tensor if self.model.mla is not None else max(1.0, self.tensor / self.model.kv_heads)
        return self.stage * self.token_bytes * copies

    @property
    def tokens(self) -> int:
        """Of cache that fit; below 0 where not even the weights do."""
        return int((self.room - self.weights) // self.held)

    @property
    def fits(self) -> bool:
        return self.tokens >= SMALLEST_POOL


def _does_not_fit(one: _Replica) -> str:
    """one: what was tried last."""
    machine, model = one.machine, one.model
    needed = one.weights + SMALLEST_POOL * one.held
    problem = (
        f"{model.title} needs {needed / 1e9:.1f} GB for weights and the smallest cache, and {one.tensor} x "
        f"{machine.card.title} has {one.room / 1e9:.1f} GB for them ({one.fraction:.0%} of what is free): "
        f"{(needed - one.room) / 1e9:.1f} GB are missing"
    )
    return f"{problem}; use {' or '.join([*_advice(one), 'a smaller model'])}"


def _advice(one: _Replica) -> Iterator[str]:
    """What would let the model fit."""
    if one.machine.card.kind == "cpu":
        return
    if one.limits.fraction is None and replace(one, limits=replace(one.limits, chunk=_LEAST_CHUNK)).fits:
        yield f"--engine-arg chunked_prefill_size={_LEAST_CHUNK}"
    more = (count for count in (2, 4, 8, 16, 32) if count > one.tensor and replace(one, tensor=count).fits)
    if (enough := next(more, None)) is not None:
        yield f"{enough} of them (--tp {enough})"
