"""`--engine replay`: placeholders on a virtual clock."""

from __future__ import annotations

from blendrun.backends.base import Backend, Opening
from blendrun.backends.permissions import rules_of
from blendrun.backends.ray import on_node
from blendrun.blend.orders import needs_prompts
from blendrun.engine.base import Engine
from blendrun.engine.ray.host import Replay
from blendrun.engine.replay import ReplayEngine
from blendrun.errors import UsageError
from blendrun.events import Note
from blendrun.names import EngineName
from blendrun.planner.run_plan import RunPlan
from blendrun.store.folder import StateFolder


def open_backend(opening: Opening) -> Backend:
    """Raises UsageError."""
    options = opening.options
    opening.listener(Note("replay: no model runs, the answers are placeholders"))
    if options.order is not None and needs_prompts(options.order):
        raise UsageError(f"--order {options.order} needs the prompts in tokens, and replay has no tokenizer")
    if options.tp is not None:
        raise UsageError("--tp: replay uses no GPU")
    # Once now: wrong ones are refused before anything is made.
    settings = ReplayEngine.from_arguments(options.engine_args).settings

    def make(state: StateFolder, plan: RunPlan, shrinks: int) -> Engine:
        needs = opening.place.needs
        return ReplayEngine(settings) if needs is None else on_node(Replay(settings), needs, state)

    return Backend(
        engine=str(EngineName.REPLAY),
        model=options.model or "replay",
        identity="replay",
        make_engine=make,
        rules=rules_of(options, options.engine_args),
        replicas=opening.place.replicas,
    )
