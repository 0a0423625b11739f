"""What SGLang keeps free of a GPU: room for activations, for captured graphs and for what runs the device.

SGLang chooses the share of the memory that weights and KV pool get by the size of the device, before anything is
loaded: here is that choice in our own words, as SGLang 0.5.23 makes it (srt/arg_groups/memory_hook.py; sizes of graphs:
srt/arg_groups/cuda_graph_hook.py; what the share is taken of: srt/mem_cache/kv_cache_configurator.py).
`scripts/bench/pool.py` compares the two.
"""

from __future__ import annotations

import math

from blendrun.cost.base import HardwareCard

_MIB, _GIB = 1 << 20, 1 << 30
# By memory below so many GiB: prefill tokens of a step, rows that decode graphs are captured for on 1 to 3 ranks of
# tensor parallelism, and on more.
_BY_MEMORY = (
    (20, 2048, 8, 8),
    (35, 4096, 48, 160),
    (60, 4096, 32, 160),
    (160, 8192, 256, 512),
    (math.inf, 16_384, 512, 512),
)
_WIDE = 4
# Where there is no GPU.
_CPU_CHUNK = 4096
# MiB: always; a token of the chunk; eight devices; a row of the decode graphs; a captured prefill; all of those of a
# model with latent attention.
_ALWAYS, _OF_TOKEN, _OF_EIGHT, _OF_ROW, _OF_PREFILL, _OF_LATENT = 512, 1.5, 1024, 2, 8, 1536
_SMALLEST_CHUNK = 2048
# On devices above so many GiB no less than that many MiB are kept.
_ROOMY, _LEAST = 60, 10 * 1024
# Tokens of the captured prefills: up to the first number in steps of the second, and so on.
_PREFILL_SIZES = ((32, 4), (256, 16), (512, 32), (1024, 64), (4096, 256), (math.inf, 512))
# Rows of the captured decode steps, likewise.
_DECODE_SIZES = ((2, 1), (4, 2), (16, 4), (256, 8), (512, 16), (math.inf, 32))
# Rows beyond this share of the memory run without a graph: such steps are long, and their launch hides.
_GRAPH_SHARE = 1 / 32
# What the driver and a CUDA context take of a device, and communication between several: start-up logs that users
# of SGLang have posted (H100, H200, L40S, RTX 4090) have 1.1 to 1.4 GiB, and 0.2 to 2 GiB more. Not measured here.
_CONTEXT, _COMMUNICATION = int(1.2 * _GIB), _GIB


def engine_chunk(card: HardwareCard) -> int:
    """Prefill tokens of a step where nobody says otherwise."""
    return _CPU_CHUNK if card.kind == "cpu" else _row(card)[1]


def default_graph_rows(card: HardwareCard, tensor: int) -> int:
    """Rows that decode graphs are captured for where nobody says otherwise. tensor: ranks of tensor parallelism."""
    _, _, few, many = _row(card)
    return few if tensor < _WIDE else many


def graph_size(rows: int) -> int:
    """The smallest size on SGLang's list of decode graphs that holds so many rows."""
    first = 0
    for last, step in _DECODE_SIZES:
        if rows <= last:
            return int(first + -(-(rows - first) // step) * step)
        first = int(last)
    raise ValueError(rows)


def largest_graph(card: HardwareCard) -> int:
    """Rows that decode graphs may be captured for without taking too much from the pool."""
    return graph_size(int(card.memory.value * _GRAPH_SHARE / _MIB / _OF_ROW))


def static_fraction(
    card: HardwareCard, *, tensor: int, stages: int, chunk: int, graph_rows: int, latent: bool = False
) -> float:
    """Share of the free memory for weights and KV pool, to three places.

    tensor, stages: ranks of tensor and pipeline parallelism. chunk: prefill tokens of a step. graph_rows: that decode
    graphs are captured for, 0 without graphs. latent: whether the model has latent attention (MLA).
    """
    memory = card.memory.value / _MIB
    # A pipeline's prefills are not captured.
    prefills = 0 if stages > 1 else _OF_LATENT if latent else _OF_PREFILL * _captured_prefills(chunk)
    reserved = (
        _ALWAYS
        + _OF_TOKEN * max(chunk, _SMALLEST_CHUNK)
        + _OF_EIGHT * tensor * stages / 8
        + _OF_ROW * graph_rows
        + prefills
    )
    if memory > _ROOMY * 1024:
        reserved = max(reserved, _LEAST)
    return round((memory - reserved) / memory, 3)


def free_bytes(card: HardwareCard, devices: int) -> float:
    """Of one device before weights are loaded. devices: of the engine."""
    return card.memory.value - _CONTEXT - (_COMMUNICATION if devices > 1 else 0)


def _captured_prefills(chunk: int) -> int:
    count, first = 0, 0
    for last, step in _PREFILL_SIZES:
        count += max(int(min(chunk, last)) - first, 0) // step
        first = int(min(chunk, last))
    return count


def _row(card: HardwareCard) -> tuple[float, int, int, int]:
    return next(row for row in _BY_MEMORY if card.memory.value < row[0] * _GIB)
