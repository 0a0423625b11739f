"""Orders in which accepted rows are fed to the engine."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from blendrun.blend.base import OrderName
from blendrun.blend.simple import shuffled
from blendrun.jobs import Job
from blendrun.runner.events import Note, PhaseStarted, Progress, Watch

# The accepted rows of a job in feed order, found by looking at their prompts; told what to report to.
PlanRows = Callable[
    [Job, Callable[[str, str], None], Callable[[int, int, str], None], Callable[[str], None]], NDArray[np.int64]
]


def arrange(
    job: Job, rows: NDArray[np.int64], order: OrderName, plan_rows: PlanRows | None, watch: Watch
) -> NDArray[np.int64]:
    """`rows` of the job in the order of `order`; i64, same length. plan_rows: for the orders that need prompts."""
    if order is OrderName.GIVEN or not len(rows):
        return rows
    if order is OrderName.SHUFFLED:
        return shuffled(rows)
    if plan_rows is None:
        raise ValueError(f"the order {order} needs a planner")
    planned = plan_rows(
        job,
        lambda name, detail: watch(PhaseStarted(name, detail)),
        lambda done, total, unit: watch(Progress(done, total, unit)),
        lambda text: watch(Note(text, warning=True)),
    )
    return planned[np.isin(planned, rows)]
