"""Plans that need no planner: rows as they stand, or shuffled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from blendrun.blend.orders import ORDERS
from blendrun.names import OrderName, Overlap
from blendrun.planner.feeder import RowFeeder
from blendrun.planner.run_plan import Divided, RunPlan


def divide_rows(rows: NDArray[np.int64], order: OrderName, overlap: Overlap, replicas: int) -> Divided:
    """The same for several replicas: consecutive rows to each. Raises as `plan_rows` does."""
    parts = tuple(plan_rows(part, order, overlap) for part in np.array_split(rows, replicas))
    return Divided(plan_rows(rows, order, overlap), parts)


def plan_rows(rows: NDArray[np.int64], order: OrderName, overlap: Overlap) -> RunPlan:
    """rows: i64, accepted rows of a job in input order. Raises ValueError for an order that needs prompts."""
    permute = ORDERS[order].of_rows
    if permute is None:
        raise ValueError(f"the order {order} needs a planner")
    return RunPlan(RowFeeder(permute(rows)), order, overlap)
