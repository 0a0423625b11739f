"""Asks a child process for the raw rates of the device."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Literal

import msgspec

from blendrun.calibrate.base import Rates
from blendrun.errors import EngineUnavailableError

_TAIL_LINES = 12
# Importing torch takes most of a minute where its bytecode is not cached yet.
_TIMEOUT_S = 300


class Request(msgspec.Struct, frozen=True):
    """What the child measures: the shape of the model's attention, and how often."""

    platform: Literal["cpu", "gpu"]
    heads: int
    kv_heads: int
    head_dim: int
    repeats: int = 9


def measure_rates(request: Request, environment: dict[str, str]) -> Rates:
    """Raw rates, measured in a child. environment: variables on top of this process's own (threads, mostly).

    Raises EngineUnavailableError with the end of what the child printed.
    """
    command = [sys.executable, "-P", "-m", "blendrun.calibrate.worker", msgspec.json.encode(request).decode()]
    try:
        done = subprocess.run(
            command, env=os.environ | environment, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineUnavailableError(f"the rates of this machine could not be measured: {error}") from error
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        tail = "\n".join(f"  | {line}" for line in done.stderr.splitlines()[-_TAIL_LINES:])
        raise EngineUnavailableError(
            f"the rates of this machine could not be measured (exit status {done.returncode}):\n{tail}"
        )
    return msgspec.json.decode(lines[-1], type=Rates)
