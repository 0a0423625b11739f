"""Orders of a job: values of one type, whichever rule made them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blendrun.blend.scan_row import ScanRow
from blendrun.names import OrderName

LEFT, RIGHT = 0, 1


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """M prompts in the order in which they are to be fed.

    prompt: i64 (M,), prompt numbers, a permutation of 0..M-1.
    side: u8 (M,), in feed order: LEFT for the compute-heavy end of the blend, RIGHT for the memory-heavy one; all LEFT
        for orders that have no sides.
    """

    name: OrderName
    prompt: NDArray[np.int64]
    side: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.prompt)


@dataclass(frozen=True, slots=True)
class Turn:
    """What the rule asks for that says whose turn it is (`scan.first_side`), of a request at the head of its side.

    side: LEFT or RIGHT. holds: tokens of the pool that it holds on the mean of its stay. area: its tokens times its
    decode steps, where sides admit at an even pace; else 0. stays: whether it is the rest of what its side has begun.
    unit: piece of the blend's row; density, reads: of that, as in `ScanRow`. compute, memory: its own seconds; rest_:
    those of all that was not handed over when it was. size, rest_size: likewise, tokens at the end (`ScanRow.size`).
    reach: tokens that its answer may well have.
    """

    side: int
    holds: float = 0.0
    area: float = 0.0
    stays: bool = False
    unit: int = -1
    density: float = 1.0
    reads: float = 1.0
    compute: float = 0.0
    memory: float = 0.0
    rest_compute: float = 0.0
    rest_memory: float = 0.0
    size: float = 0.0
    rest_size: float = math.inf
    reach: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Blend:
    """A blended order with what its making tells.

    order: as the dual scan feeds it in expected time.
    row, row_prompt: what a feeder with a clock of its own reads from both ends instead; row_prompt: i64 (M,), the
        prompts in the row's order.
    left_share: f32 (M,), in feed order: share of the KV pool that the left side was to hold when this was fed.
    density: compute seconds over memory seconds of the whole job, sharing included; infinite where nothing is decoded.
    kept_sharing: tokens shared by neighbours on a side, or in use at any time, over what an infinite prefix cache
        saves; 1 where nothing is shared. About the least that a real cache keeps: it holds more than the last prompts.
    units: pieces of the tree that the scan moved as a whole.
    kv_peak: most KV tokens held at once, in the scan's own time (lengths as expected, prefill taking no time).
    """

    order: Order
    row: ScanRow
    row_prompt: NDArray[np.int64]
    left_share: NDArray[np.float32]
    density: float
    kept_sharing: float
    units: int
    kv_peak: float
