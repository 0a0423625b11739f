"""Engines that outlive a job: the next one that wants such an engine takes it, loaded as it is.

What decides an engine is what SGLang's Engine is made with. What the scheduler does for a plan is told anew for each
job (`engine.scheduler.plugin.Jobs`), so an engine that is kept is made for all that a plan may ask of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from blendrun.engine.base import EngineInfo, EngineSettings
from blendrun.engine.child import Child
from blendrun.engine.scheduler.plugin import SETTINGS_VARIABLE
from blendrun.engine.settings import server_args, settings_environment

# How much an engine takes at once follows from the plan that it was made for. The next plan goes by what it has.
_SIZES = ("max_running_requests", "cuda_graph_max_bs_decode", "mem_fraction_static")


@dataclass(frozen=True, slots=True)
class Kept:
    """An engine without work. child: its process. info: what it said of itself."""

    child: Child
    info: EngineInfo


class KeptEngines:
    """Those that no run has at the moment. Only runs of this process, one after the other, take and leave them."""

    def __init__(self) -> None:
        self._waiting: list[tuple[dict[str, Any], Kept]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self, settings: EngineSettings) -> Kept | None:
        """One that can do what `settings` ask for. None where there is none: whoever starts another then has to close
        these first, as memory that holds one model does not hold two."""
        wanted = _makings(settings)
        for place, (makings, kept) in enumerate(self._waiting):
            if makings == wanted and kept.child.lives:
                del self._waiting[place]
                return kept
        return None

    def leave(self, settings: EngineSettings, kept: Kept) -> None:
        """One that has nothing to do."""
        self._waiting.append((_makings(settings), kept))

    def close(self) -> None:
        """End all of them, and wait until they are gone, which may take seconds."""
        while self._waiting:
            self._waiting.pop()[1].child.end()


def for_any_plan(settings: EngineSettings) -> EngineSettings:
    """The same, made so that any plan can be told to it later."""
    scheduler = msgspec.structs.replace(settings.scheduler, next_use=True, plan_order=True)
    return msgspec.structs.replace(settings, scheduler=scheduler)


def _makings(settings: EngineSettings) -> dict[str, Any]:
    """All that a running engine could not be told any more."""
    made = for_any_plan(settings)
    arguments = {name: value for name, value in server_args(made).items() if name not in _SIZES}
    variables = {name: value for name, value in settings_environment(made).items() if name != SETTINGS_VARIABLE}
    return {
        "platform": settings.platform,
        "threads": settings.threads,
        "model_name": settings.model_name,
        # Files that were overwritten are another model at the same path.
        "identity": settings.identity,
        "overlap": settings.overlap,
        "arguments": arguments,
        "variables": variables,
    }
