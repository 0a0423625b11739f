"""From `--hardware` and `--gpus` to machines."""

from __future__ import annotations

from blendrun.cost.base import Machine
from blendrun.cost.detect import own_hardware
from blendrun.cost.hardware import load_hardware, machine
from blendrun.errors import UsageError


def machines_of(hardware: str | None, gpus: str) -> list[Machine]:
    """Every card with every number of devices; both comma-separated, None: this machine's card.

    Raises UsageError, InputMissingError.
    """
    names = [name.strip() for name in (hardware or own_hardware()).split(",") if name.strip()]
    try:
        counts = [int(count) for count in gpus.split(",")]
    except ValueError:
        counts = [0]
    if min(counts) < 1 or not names:
        raise UsageError(f"--gpus takes numbers of 1 or more, for example 1,2,4, not {gpus!r}")
    return [machine(load_hardware(name), count) for name in names for count in counts]
