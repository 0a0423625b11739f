"""How large an engine is: what the user said of it, what a plan needs, and less of it where memory ran out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from blendrun.cost.capacity import EngineLimits
from blendrun.cost.reserve import graph_size
from blendrun.engine.base import Platform
from blendrun.engine.shared_reads import shared_reads
from blendrun.errors import UsageError

# Tokens. 1.5 GB for SmolLM2-135M in float32; a larger pool takes seconds to allocate and a CPU does not fill it.
CPU_KV_TOKENS = 32_768
# Bounds how long a step takes and how much work in flight a kill loses; not tuned for throughput.
CPU_MAX_RUNNING = 32
# SGLang's own where there is no GPU.
_CPU_CHUNK = 4096
# Prefill tokens of a step without chunks: SGLang's `max_prefill_tokens`.
_LARGEST_PREFILL = 16_384
_WHOLE_NUMBERS = ("max_total_tokens", "max_running_requests", "chunked_prefill_size", "tp_size", "pp_size")
# Where nobody said otherwise and memory ran out: below what SGLang chooses by itself.
_GPU_MAX_RUNNING, _GPU_FRACTION = 256, 0.86
_LESS_POOL = 0.7
# Arguments that say how many rows decode graphs are captured for, or that there are none.
_GRAPHS = (
    *("cuda_graph_config", "cuda_graph_bs_decode", "cuda_graph_max_bs_decode"),
    *("cuda_graph_backend_decode", "disable_cuda_graph", "disable_decode_cuda_graph"),
)
_DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class PlannedSize:
    """What a plan needs of an engine. None: it does not know.

    max_running: answers at once. graph_rows: that decode graphs are captured for. fraction: share of a device's free
    memory for weights and pool, which the plan counted with.
    """

    max_running: int | None = None
    graph_rows: int | None = None
    fraction: float | None = None


def engine_limits(platform: Platform, arguments: dict[str, Any]) -> EngineLimits:
    """What is known of an engine before it starts. arguments: the user's own.

    Raises UsageError for a number that is none.
    """
    default = {"max_total_tokens": CPU_KV_TOKENS, "max_running_requests": CPU_MAX_RUNNING} if platform == "cpu" else {}
    told = {name: (default | arguments).get(name) for name in _WHOLE_NUMBERS}
    for name, value in told.items():
        # -1 turns chunks off.
        if value is not None and (not isinstance(value, int) or (value < 1 and name != "chunked_prefill_size")):
            raise UsageError(f"--engine-arg {name}={value}: give a whole number above 0")
    pool, running, chunk, tensor, stages = told.values()
    if chunk is not None and chunk < 1:
        chunk = _LARGEST_PREFILL
    if platform == "cpu":
        # All ranks are on one device there, and its memory bounds nothing.
        return EngineLimits(pool, running, chunk or _CPU_CHUNK, shared_reads=shared_reads(platform, arguments))
    fraction = arguments.get("mem_fraction_static")
    if fraction is not None and not isinstance(fraction, int | float):
        raise UsageError(f"--engine-arg mem_fraction_static={fraction}: give a share of the memory, such as 0.85")
    return EngineLimits(
        pool,
        running,
        chunk,
        # One stage without tensor parallelism is one device, but nobody said so.
        tensor=tensor or (1 if stages is not None else None),
        stages=stages or 1,
        fraction=fraction,
        graph_rows=_told_graph_rows(arguments),
        shared_reads=shared_reads(platform, arguments),
    )


def limits_to_plan(platform: Platform, arguments: dict[str, Any]) -> EngineLimits:
    """The same for an engine that a plan is made for. Raises UsageError for one that a plan cannot be kept on, too."""
    ranks = arguments.get("dp_size", 1)
    if ranks != 1:
        raise UsageError(
            f"dp_size={ranks}: SGLang deals requests to its data-parallel ranks in turn, which keeps neither a plan's "
            f"order nor its prefixes; use --replicas {ranks}, each with a part of the plan, or --order given"
        )
    return engine_limits(platform, arguments)


def sized_arguments(arguments: dict[str, Any], platform: Platform, size: PlannedSize) -> dict[str, Any]:
    """Engine arguments with what the plan needs, where the user did not say. A CPU's engine stays as it is."""
    if platform == "cpu":
        return arguments
    wanted: dict[str, Any] = {}
    if size.max_running is not None:
        wanted["max_running_requests"] = size.max_running
    if size.graph_rows is not None and not any(name in arguments for name in _GRAPHS):
        wanted["cuda_graph_max_bs_decode"] = size.graph_rows
    return wanted | arguments


def shrunk_arguments(
    arguments: dict[str, Any],
    platform: Platform,
    times: int,
    context_length: int | None = None,
    fraction: float | None = None,
) -> dict[str, Any]:
    """Arguments of an engine that needs less memory, for one that ran out of it `times` times. times 0: unchanged.

    Half as many requests at once each time, and a KV pool of 0.7 of its size, but not less than one request of
    `context_length` tokens takes: else it would refuse what the first engine took. What weights and activations take
    does not shrink; on a GPU the share of memory that weights and pool may have does. fraction: that share, as it was.
    """
    if not times:
        return arguments
    limits = engine_limits(platform, arguments)
    running = max((limits.max_running or _GPU_MAX_RUNNING) >> times, 1)
    less: dict[str, Any] = {"max_running_requests": running}
    if limits.pool_tokens is not None:
        least = min(limits.pool_tokens, context_length or 1)
        less["max_total_tokens"] = max(int(limits.pool_tokens * _LESS_POOL**times), least)
    if platform == "gpu":
        share = limits.fraction or min(fraction or _GPU_FRACTION, _GPU_FRACTION)
        less["mem_fraction_static"] = round(share - 0.06 * times, 3)
        if "cuda_graph_max_bs_decode" in arguments:
            less["cuda_graph_max_bs_decode"] = min(arguments["cuda_graph_max_bs_decode"], graph_size(running))
    return arguments | less


def _told_graph_rows(arguments: dict[str, Any]) -> int | None:
    """Rows that decode graphs are captured for, 0 for no graphs; None where the arguments leave that to SGLang."""
    config = arguments.get("cuda_graph_config")
    decode = (config.get("decode") or {}) if isinstance(config, dict) else {}
    backend = decode.get("backend", arguments.get("cuda_graph_backend_decode"))
    off = arguments.get("disable_cuda_graph") or arguments.get("disable_decode_cuda_graph")
    if backend == _DISABLED or (off and backend is None):
        return 0
    sizes = decode.get("bs", arguments.get("cuda_graph_bs_decode"))
    if isinstance(sizes, list) and sizes and all(isinstance(size, int) for size in sizes):
        return int(max(sizes))
    most = decode.get("max_bs", arguments.get("cuda_graph_max_bs_decode"))
    return most if isinstance(most, int) else None
