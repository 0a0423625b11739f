"""A request that an engine has, and what its answer has to be."""

from __future__ import annotations

from dataclasses import dataclass

from blendrun.endpoints.apis.base import Spoken
from blendrun.endpoints.promises import Promise
from blendrun.planner.feeder import QueuedRequest
from blendrun.planner.run_plan import RunPlan


@dataclass(frozen=True, slots=True)
class Asked:
    """What an answer has to be. promise: which form it was promised to have. spoken: whose words it is to be in, if not
    those of the endpoint.
    """

    custom_id: str
    promise: Promise | None = None
    spoken: Spoken | None = None


@dataclass(frozen=True, slots=True)
class Flight:
    """A request that the engine has. submitted: seconds, as `Records.now` counts; size: bytes of its body.

    plan: whose feeder it came from.
    """

    queued: QueuedRequest
    plan: RunPlan
    asked: Asked
    submitted: float
    size: int
