"""Asks a child process for the raw rates of the device."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from typing import Literal

import msgspec

from blendrun.calibrate.base import Rates
from blendrun.errors import EngineUnavailableError

# Asked for as `Request.attention`: torch's own.
PLAIN = "torch"
_TAIL_LINES = 12
# Importing torch takes most of a minute where its bytecode is not cached yet.
_TIMEOUT_S = 300


class Request(msgspec.Struct, frozen=True):
    """What the child measures: the shape of the model's attention, and how often.

    attention: SGLang's name of the backend that the engine decodes with; None where it did not say. page: tokens of a
    page of its cache.
    """

    platform: Literal["cpu", "gpu"]
    heads: int
    kv_heads: int
    head_dim: int
    repeats: int = 9
    attention: str | None = None
    page: int = 1


def measure_rates(request: Request, environment: dict[str, str]) -> Rates:
    """Raw rates, measured in a child. environment: variables on top of this process's own (threads, mostly).

    A kernel that breaks its process costs only its own figure: torch's attention stands in.
    Raises EngineUnavailableError with the end of what the child printed.
    """
    try:
        return _in_child(request, environment)
    except EngineUnavailableError as error:
        if request.platform == "cpu":
            raise
        found = _in_child(msgspec.structs.replace(request, attention=PLAIN), environment)
        why = f"the engine's {request.attention} broke its process ({str(error).splitlines()[-1].strip()})"
        return dataclasses.replace(found, stand_in=why)


def _in_child(request: Request, environment: dict[str, str]) -> Rates:
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
