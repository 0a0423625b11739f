"""From `--hardware` and `--gpus` to machines."""

from __future__ import annotations

from blendrun.cost.base import Machine
from blendrun.cost.detect import own_hardware
from blendrun.cost.hardware import load_hardware, machine
from blendrun.errors import UsageError


def machines_of(hardware: str | None, gpus: str | None, devices: int = 1) -> list[Machine]:
    """Every card with every number of devices, both comma-separated.

    hardware: None for this machine's. gpus: None for those of one engine, which are `devices`, or one CPU.

    Raises UsageError, InputMissingError.
    """
    names = [name.strip() for name in (hardware or own_hardware()).split(",") if name.strip()]
    try:
        counts = [int(count) for count in gpus.split(",")] if gpus is not None else []
    except ValueError:
        counts = [0]
    if min(counts, default=1) < 1 or not names:
        raise UsageError(f"--gpus takes numbers of 1 or more, for example 1,2,4, not {gpus!r}")
    cards = [load_hardware(name) for name in names]
    return [machine(card, count) for card in cards for count in counts or (1 if card.kind == "cpu" else devices,)]
