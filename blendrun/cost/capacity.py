"""How the devices divide among replicas of the model, and how much KV cache each replica has room for."""

from __future__ import annotations

from dataclasses import dataclass

from blendrun.cost.base import Machine
from blendrun.errors import UsageError
from blendrun.models.card import ModelCard

# Prompt tokens that an engine works on at once at most: they size the activations.
ACTIVATION_TOKENS = 8192
# A pool smaller than this serves nothing but the shortest requests.
SMALLEST_POOL = 2048


@dataclass(frozen=True, slots=True)
class KvPool:
    """`replicas` copies of the model, each on `gpus` devices with a pool of `tokens` cached tokens.

    token_bytes: bytes of KV cache of one token, counted once however many devices hold a copy.
    """

    replicas: int
    gpus: int
    tokens: int
    token_bytes: int

    @property
    def bytes(self) -> int:
        """M (docs/paper.md#the-pool): bytes of KV cache that one replica holds."""
        return self.tokens * self.token_bytes


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """What one engine was told to hold, where that is not what the device's memory leaves. None: not told.

    pool_tokens: of the KV pool. max_running: answers decoding at once. chunk: prefill tokens of a step.
    """

    pool_tokens: int | None = None
    max_running: int | None = None
    chunk: int | None = None


NO_LIMITS = EngineLimits()


def kv_pool(model: ModelCard, machine: Machine, fraction: float = 0.9) -> KvPool:
    """The pools of a model on a machine (docs/paper.md#the-pool).

    fraction: share of a device's memory for weights, activations and cache; the rest is the runtime's own.
    A model that fits one device gets a replica on each; else all devices together hold one copy (tensor parallel).
    Tokens of a model with sliding windows are counted as if no window were full: the least that fits.
    Raises UsageError where it does not fit, with what is missing and what to do.
    """
    if not 0 < fraction <= 1:
        raise UsageError(f"{fraction:g} is no share of the memory: give a number above 0 and up to 1")
    for gpus in dict.fromkeys((1, machine.gpus)):
        tokens = _pool_tokens(model, machine, gpus, fraction)
        if tokens >= SMALLEST_POOL:
            return KvPool(machine.gpus // gpus, gpus, tokens, model.kv_bytes_per_token(machine.value_bytes))
    raise UsageError(_does_not_fit(model, machine, fraction))


def _pool_tokens(model: ModelCard, machine: Machine, gpus: int, fraction: float) -> int:
    """Tokens of cache that fit beside one copy of the model on `gpus` devices; below 0 where not even that fits."""
    room = fraction * machine.memory / machine.gpus * gpus - _fixed_bytes(model, machine.value_bytes, gpus)
    return int(room // (model.kv_bytes_per_token(machine.value_bytes) * _cache_copies(model, gpus)))


def _fixed_bytes(model: ModelCard, value_bytes: int, gpus: int) -> float:
    """Bytes of the weights (all experts) and the activations of one replica.

    A prior for activations: four vectors of the hidden size a token on each device, and the gated MLP's three, split.
    """
    moe = model.moe
    sparse = moe.experts_per_token * moe.expert_intermediate_size + moe.shared_intermediate_size if moe else 0
    width = 4 * model.hidden_size * gpus + 3 * max(model.intermediate_size, sparse)
    return value_bytes * (model.parameters_total + ACTIVATION_TOKENS * width)


def _cache_copies(model: ModelCard, gpus: int) -> float:
    """How often a cached value is held: tensor parallelism splits key-value heads, and a latent vector not at all."""
    return gpus if model.mla is not None else max(1.0, gpus / model.kv_heads)


def _does_not_fit(model: ModelCard, machine: Machine, fraction: float) -> str:
    gpus, card = machine.gpus, machine.card
    least = SMALLEST_POOL * model.kv_bytes_per_token(machine.value_bytes) * _cache_copies(model, gpus)
    needed = _fixed_bytes(model, machine.value_bytes, gpus) + least
    missing = needed - fraction * machine.memory
    problem = (
        f"{model.title} needs {needed / 1e9:.1f} GB for weights, activations and the smallest cache, and {gpus} x "
        f"{card.title} has {fraction * machine.memory / 1e9:.1f} GB for them ({fraction:.0%} of its memory): "
        f"{missing / 1e9:.1f} GB are missing"
    )
    enough = (count for count in (2, 4, 8, 16, 32) if count > gpus)
    fits = (count for count in enough if _pool_tokens(model, machine, count, fraction) >= SMALLEST_POOL)
    more = None if card.kind == "cpu" else next(fits, None)
    return f"{problem}; use {more} of them, or a smaller model" if more else f"{problem}; use a smaller model"
