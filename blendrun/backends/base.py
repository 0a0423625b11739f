"""The nouns of backends: what a run is opened with, where its engines run, what answers it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from blendrun.backends.options import RunOptions
from blendrun.endpoints.rules import Rules
from blendrun.engine.base import Platform
from blendrun.engine.child import EarlyChildren
from blendrun.engine.kept import KeptEngines
from blendrun.events import Listener
from blendrun.learned.own import OwnSpeed
from blendrun.models.resolve import ResolvedModel
from blendrun.planner.run_planner import RunPlanner
from blendrun.runner.replica import MakeEngine
from blendrun.runner.settings import FindPurpose
from blendrun.runner.strict import JobCheck

# Without a sign of life for so long an engine is hung.
STALL_S = 600.0
# While it loads, weights may come slowly and nothing is said.
LOAD_STALL_S = 1800.0


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a run's engines are.

    replicas: engines side by side. threads: of the CPU, for each. needs: what each takes of a Ray node, None for
    engines on this machine. hardware: name of the card to plan with; None for this machine's.
    """

    platform: Platform
    replicas: int
    threads: int
    needs: dict[str, float] | None = None
    hardware: str | None = None


@dataclass(frozen=True, slots=True)
class Opening:
    """What a backend is opened with. early: processes for its engines. listener: told what takes long.

    kept: where engines come from and are left that outlive a run; None: they end with it.
    """

    options: RunOptions
    place: Placement
    early: EarlyChildren
    listener: Listener
    kept: KeptEngines | None = None


@dataclass(frozen=True, slots=True)
class Backend:
    """What answers a run, and what follows from it.

    engine, model, identity: for the manifest. rules: what lines may ask for. answer_settings: those that can change an
    answer. versions: of the engine's packages. planner: None where rows are fed as they stand. check: of prompts, for
    `--strict`. shows_tools: whether the model's chat template does; None where nobody knows. stall: seconds of silence
    that mean a hung engine; load: while it comes up. resolved: the model, where its tokenizer is here. speed: of the
    engines, where they are this machine's. devices: GPUs of all engines, or machines where there are none: what an hour
    is paid for.
    purpose: what a job's lines need an engine for; None where engines take all.
    greedy: urls at which engines decode greedily where a line says nothing. apart: what keeps answers of this backend
    apart from those of others, beside all that the manifest says.
    """

    engine: str
    model: str
    identity: str
    make_engine: MakeEngine
    rules: Rules
    replicas: int
    devices: int = 1
    stall: float = STALL_S
    load: float = LOAD_STALL_S
    answer_settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    planner: RunPlanner | None = None
    check: JobCheck | None = None
    resolved: ResolvedModel | None = None
    shows_tools: bool | None = None
    speed: OwnSpeed | None = None
    purpose: FindPurpose | None = None
    greedy: frozenset[str] = frozenset()
    apart: tuple[str, ...] = ()


# Raises UsageError, InputMissingError, EngineUnavailableError.
OpenBackend = Callable[[Opening], Backend]
