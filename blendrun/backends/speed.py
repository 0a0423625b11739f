"""Which engine of this machine a run or a plan is for, and what is known of its speed."""

from __future__ import annotations

import json
import platform as host
from dataclasses import replace
from typing import Any

from blendrun.cost.base import Machine
from blendrun.cost.detect import own_hardware
from blendrun.cost.gpus import usable_gpus
from blendrun.cost.hardware import load_hardware, machine
from blendrun.engine.base import Platform
from blendrun.engine.settings import step_settings
from blendrun.engine.sizes import engine_limits
from blendrun.errors import BlendrunError, UsageError
from blendrun.events import Listener, Note
from blendrun.learned.base import EngineKey
from blendrun.learned.own import OwnSpeed, card_speed, own_speed
from blendrun.learned.store import StepsUnavailableError
from blendrun.models.card import ModelCard

# Each rank of these has a model of its own, and a log of its own.
_RANKS = "dp_size"


def engine_key(
    card: ModelCard, name: str, runs: Platform, arguments: dict[str, Any], *, threads: int, replicas: int = 1
) -> EngineKey:
    """The key of an engine on this machine. name: of the model. arguments: the engine's.

    threads, replicas: of each engine on a CPU, and engines side by side; a GPU's share nothing. Raises UsageError.
    """
    gpus = engine_limits(runs, arguments).devices or 1
    on_cpu = runs == "cpu"
    return EngineKey(
        host=host.node(),
        platform=runs,
        device="" if on_cpu else ", ".join(sorted({gpu.product for gpu in usable_gpus()})),
        model=card.digest,
        gpus=1 if on_cpu else gpus,
        threads=threads if on_cpu else 0,
        replicas=replicas if on_cpu else 0,
        arguments=json.dumps(step_settings(arguments), sort_keys=True, default=str),
        name=name,
    )


def speed_of(
    card: ModelCard | None,
    name: str,
    runs: Platform,
    arguments: dict[str, Any],
    listener: Listener,
    *,
    threads: int,
    replicas: int = 1,
) -> OwnSpeed | None:
    """How fast an engine of this machine is; None where its steps cannot be compared with those of a plan.

    Without a card for the machine, or with one that gives no times, planning says why.
    """
    if card is None or arguments.get(_RANKS, 1) != 1:
        return None
    try:
        key = engine_key(card, name, runs, arguments, threads=threads, replicas=replicas)
        on = machine(load_hardware(own_hardware(runs)), key.gpus)
        return _known(key, card, on, listener)
    except UsageError:
        return None


def taught(
    on: Machine, card: ModelCard, name: str, arguments: dict[str, Any], listener: Listener, *, threads: int
) -> Machine:
    """A machine of a plan, which is this one, with what runs taught of the engine that the plan is for.

    threads: of the engine on a CPU.
    """
    runs: Platform = "cpu" if on.card.kind == "cpu" else "gpu"
    try:
        key = engine_key(card, name, runs, arguments, threads=threads)
        found = _known(key, card, on if runs == "cpu" else on.some(key.gpus), listener)
    except BlendrunError:
        return on
    return replace(on, learned=found.machine.learned)


def _known(key: EngineKey, card: ModelCard, on: Machine, listener: Listener) -> OwnSpeed:
    """Raises UsageError."""
    try:
        return own_speed(key, card, on)
    except StepsUnavailableError as error:
        listener(Note(str(error), warning=True))
        return card_speed(key, card, on)
