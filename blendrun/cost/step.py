"""One step of the engine: how many tokens it should compute, and what reading the weights means for it."""

from __future__ import annotations

from blendrun.cost.base import Machine
from blendrun.models.card import ModelCard

# Kernels work in tiles of this many tokens, so a step is a multiple of it (docs/paper.md#at-run-time).
TILE = 128
# What a job without decoding gets: beyond this a larger step gains nothing and takes activation memory.
LARGEST_STEP = 16384
# Of a pool that leaves room for its requests to grow, about so much is really held (docs/paper.md#the-step-budget).
RESIDENT_SHARE = 2 / 3


def step_budget(compute_tokens: float, kv_bytes: float, pool_bytes: float, *, resident: float = 1.0) -> int:
    """T* = M * (tokens to compute) / (KV bytes to read): tokens per step, prefill and decode.

    docs/paper.md#the-step-budget.
    compute_tokens, kv_bytes: totals of the whole job, or of what remains of it.
    pool_bytes: M, the KV pool of one replica.
    resident: the share of the pool that requests really hold; 1 is the formula, RESIDENT_SHARE the usual one.
    Rounded down to a multiple of TILE, since too large a step costs more than too small a one; TILE to LARGEST_STEP.
    """
    if kv_bytes <= 0:
        return LARGEST_STEP
    tokens = min(resident * pool_bytes * compute_tokens / kv_bytes, LARGEST_STEP)
    return max(int(tokens) // TILE * TILE, TILE)


def weight_bytes(model: ModelCard, value_bytes: float, tokens: float) -> float:
    """Bytes of weights that a step of `tokens` tokens reads: layers and output head.

    docs/paper.md#reading-the-weights.
    The embedding is a look-up of a few rows. A mixture of experts reads the experts that any token is sent to; tokens
    are taken to choose evenly and independently.
    """
    total, active = model.layer_parameters_total, model.layer_parameters_active
    layers: float = total
    if model.moe is not None and total > active:
        experts, chosen = model.moe.experts, model.moe.experts_per_token
        touched = experts * (1 - (1 - chosen / experts) ** tokens)
        layers = active + (total - active) * (max(touched, chosen) - chosen) / (experts - chosen)
    return value_bytes * (layers + model.head_parameters)


def weight_bound_tokens(model: ModelCard, machine: Machine) -> float:
    """Tokens of a step below which reading the weights takes longer than multiplying with them.

    docs/paper.md#reading-the-weights.
    flops / bandwidth for a dense model in 16 bits: 153 on an A100 and 295 on an H100 at peak rates. A mixture of
    experts needs more, by its total over its active parameters: so many tokens touch every expert.
    """
    parameters = model.layer_parameters_total / model.layer_parameters_active
    return machine.value_bytes / 2 * parameters * machine.flops / machine.bandwidth
