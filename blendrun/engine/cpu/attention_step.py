"""The attention of one step: a plan that all layers share, run for one layer at a time on torch's threads."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from blendrun.engine.cpu import team
from blendrun.engine.cpu.attention_loop import Job, attend, merge, scratch_size
from blendrun.engine.cpu.attention_plan import Plan
from blendrun.engine.cpu.instructions import NARROW


def fits(
    query: torch.Tensor, output: torch.Tensor, k_cache: torch.Tensor, v_cache: torch.Tensor, req_to_token: torch.Tensor
) -> bool:
    """Whether the compiled loops can take these: float32, one head size of whole vectors, pools without gaps.

    query, output: (rows, heads, head size). k_cache, v_cache: (slots, KV heads, head size).
    """
    size = query.shape[-1]
    return (
        team.starter() is not None
        and all(each.dtype == torch.float32 for each in (query, output, k_cache, v_cache))
        and k_cache.shape == v_cache.shape
        and k_cache.shape[-1] == size == output.shape[-1]
        and size % NARROW == 0
        and size <= _NUMBERS.size
        and req_to_token.dtype == torch.int32
        and query.shape[1] % k_cache.shape[1] == 0
        and all(each.is_contiguous() for each in (k_cache, v_cache, req_to_token))
        and all(each.stride(2) == 1 and each.stride(1) == size for each in (query, output))
    )


class Step:
    """One step's attention.

    heads, kv_heads, head_size: of every layer. scale: what products of queries and keys are multiplied with.
    """

    def __init__(self, plan: Plan, heads: int, kv_heads: int, head_size: int, scale: float) -> None:
        self.shape = (heads, kv_heads, head_size)
        self.scale = scale
        job = team.new_job(Job.SIZE)
        each = heads // kv_heads
        self._threads = torch.get_num_threads()
        size = scratch_size(plan.most_rows, each, kv_heads, head_size)
        parts = _room("parts", plan.stored * heads * (head_size + 2))
        scratch = _room("scratch", self._threads * size)
        self._kept = (plan, parts, scratch)
        job[Job.PIECES], job[Job.PIECES_S] = len(plan.pieces), plan.pieces.ctypes.data
        job[Job.ROWS_S], job[Job.LIMITS_S] = plan.rows.ctypes.data, plan.limits.ctypes.data
        job[Job.SLOTS_S] = plan.slots.ctypes.data
        job[Job.HEADS_EACH], job[Job.KV_HEADS], job[Job.HEAD_SIZE] = each, kv_heads, head_size
        job[Job.SCALE_BITS] = int(np.float32(scale).view(np.int32))
        job[Job.PARTS_S], job[Job.SCRATCH_S], job[Job.SCRATCH_SIZE] = parts.ctypes.data, scratch.ctypes.data, size
        job[Job.NUMBERS_S] = _NUMBERS.ctypes.data
        job[Job.MERGES], job[Job.MERGES_S] = len(plan.merges), plan.merges.ctypes.data
        job[Job.MERGED_PARTS_S] = plan.parts.ctypes.data
        self._job = job

    def run(self, query: torch.Tensor, output: torch.Tensor, k_cache: torch.Tensor, v_cache: torch.Tensor) -> None:
        """One layer: writes `output`. All four must have been found to be what `fits`."""
        job = self._job
        job[Job.QUERY_S], job[Job.QUERY_STRIDE] = query.data_ptr(), query.stride(0)
        job[Job.OUTPUT_S], job[Job.OUTPUT_STRIDE] = output.data_ptr(), output.stride(0)
        job[Job.KEYS_S], job[Job.VALUES_S] = k_cache.data_ptr(), v_cache.data_ptr()
        job[Job.THREADS_IN] = 0
        team.run(attend.address, job, self._threads)
        if job[Job.MERGES]:
            team.run(merge.address, job, self._threads)


# A turned key's rows, one after another.
_NUMBERS = np.arange(1024)
_ROOMS: dict[str, NDArray[np.float32]] = {}


def _room(name: str, size: int) -> NDArray[np.float32]:
    """At least `size` values, the same as last time where those are enough."""
    if name not in _ROOMS or _ROOMS[name].size < size:
        _ROOMS[name] = np.empty(size, np.float32)
    return _ROOMS[name]
