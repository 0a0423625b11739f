"""From what `--engine` says to its backend: each name of `EngineName` is a module here with an `open_backend`."""

from __future__ import annotations

from importlib import import_module

from blendrun.backends.base import Backend, OpenBackend, Opening
from blendrun.backends.options import find_module


def open_backend(opening: Opening) -> Backend:
    """Raises UsageError, InputMissingError, EngineUnavailableError."""
    return find_backend(opening.options.engine)(opening)


def find_backend(engine: str) -> OpenBackend:
    """What opens an engine. Only its own module is loaded. Raises UsageError for an unknown name or a wrong address."""
    module = import_module(f"blendrun.backends.{find_module(engine)}")
    found: OpenBackend = module.open_backend
    return found
