"""How the plan of a request travels to the scheduler: in SGLang's `custom_params`.

They are part of the sampling parameters, so they also reach every copy that SGLang makes of a request with n > 1
(routing key and request id do not). Only a custom logit processor reads them otherwise.
"""

from __future__ import annotations

from dataclasses import astuple, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendrun.blend.base import Turn
from blendrun.engine.base import Planned
from blendrun.engine.scheduler.estimates import Estimates

_KEY = "blendrun"
_CACHED = "_blendrun_plan"
# Numbers of a plan, and of one with a turn.
_PLAIN = 3
_IN_TURN = _PLAIN + len(fields(Turn))
# The request that a fresh engine is tried with. It is part of no job.
WARM_UP_ID = "blendrun-warm-up"


def attach_plan(adapted: Any, plan: Planned) -> None:
    """Give SGLang's request object its plan. The priority counts on an engine that was told to keep plan order."""
    params = adapted.sampling_params
    carried = [plan.index, plan.output, plan.reuse]
    if plan.turn is not None:
        carried += astuple(plan.turn)
    params["custom_params"] = {**(params.get("custom_params") or {}), _KEY: carried}
    adapted.priority = plan.index


# One, where the runner corrects what it expects.
_corrections: list[Estimates] = []


def take_corrections(estimates: Estimates | None) -> None:
    """From now on expect what the runner corrects in this file; None: what was planned."""
    _corrections[:] = [] if estimates is None else [estimates]


def planned_output(plan: Planned) -> int:
    """Output tokens that are expected now of a request, of each choice; 0 where nobody knows."""
    for estimates in _corrections:
        if tokens := estimates.corrected(plan.index):
            return tokens
    return plan.output


def corrected_outputs(places: NDArray[np.int64], planned: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same of many. places, planned: i64 (N,), in the plan (-1 for none) and what it expected."""
    for estimates in _corrections:
        corrected = estimates.corrected_at(places)
        planned = np.where(corrected > 0, corrected, planned)
    return planned


def plan_of(request: Any) -> Planned | None:
    """The plan of a request in the scheduler; None where it has none."""
    try:
        plan: Planned | None = getattr(request, _CACHED)
    except AttributeError:
        carried = (getattr(request.sampling_params, "custom_params", None) or {}).get(_KEY)
        plan = _planned(carried)
        setattr(request, _CACHED, plan)
    return plan


def _planned(carried: Any) -> Planned | None:
    """What `attach_plan` has written; None for anything else, which a user's own parameters may be."""
    if not isinstance(carried, list) or not all(isinstance(value, int | float) for value in carried):
        return None
    if len(carried) not in (_PLAIN, _IN_TURN):
        return None
    index, output, reuse = carried[:_PLAIN]
    return Planned(index, output, reuse, turn=Turn(*carried[_PLAIN:]) if len(carried) == _IN_TURN else None)
