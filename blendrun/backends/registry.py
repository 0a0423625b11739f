"""From what `--engine` says to its backend: each name of `EngineName` is a module here with an `open_backend`."""

from __future__ import annotations

from importlib import import_module

from blendrun.backends.base import Backend, OpenBackend, Opening
from blendrun.engine.http.settings import parse_servers
from blendrun.names import EngineName


def open_backend(opening: Opening) -> Backend:
    """Raises UsageError, InputMissingError, EngineUnavailableError."""
    return find_backend(opening.options.engine)(opening)


def find_backend(engine: str) -> OpenBackend:
    """What opens an engine that `RunOptions` has let pass. Only its own module is loaded."""
    module = import_module(f"blendrun.backends.{'servers' if parse_servers(engine) else EngineName(engine)}")
    found: OpenBackend = module.open_backend
    return found
