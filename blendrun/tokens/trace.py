"""A trace as prompts: its blocks are the units, and its output lengths are facts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from blendrun.jobs.trace import Trace
from blendrun.tokens.base import Prompts


def trace_prompts(trace: Trace) -> Prompts:
    """One prompt a request of the trace, in its order.

    Prompts of different sources share nothing, as block ids are comparable within one file only.
    """
    count = len(trace)
    return Prompts(
        row=np.arange(count, dtype=np.int64),
        units=_units(trace.blocks),
        offsets=trace.offsets,
        unit_tokens=max(trace.block_size, 1),
        prompt_tokens=trace.prompt_tokens,
        root=trace.source.astype(np.uint64),
        cluster=trace.cluster,
        bound=trace.output_tokens,
        choices=np.ones(count, dtype=np.int32),
        reference=trace.output_tokens,
        known=np.ones(count, dtype=np.bool_),
    )


def _units(blocks: NDArray[np.int64]) -> NDArray[np.int32]:
    """Block ids as 32-bit numbers: as they are where they fit, else their ranks, which keeps their order. i32 (B,)."""
    if len(blocks) == 0 or (blocks.min() >= 0 and blocks.max() < 2**31):
        return blocks.astype(np.int32)
    _, units = np.unique(blocks, return_inverse=True)
    return units.astype(np.int32)
