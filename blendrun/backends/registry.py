"""The registry of backends, by what `--engine` says."""

from __future__ import annotations

from blendrun.backends import replay, servers, sglang
from blendrun.backends.base import Backend, OpenBackend, Opening
from blendrun.engine.http.settings import parse_servers
from blendrun.names import EngineName

BACKENDS: dict[str, OpenBackend] = {
    EngineName.SGLANG: sglang.open_backend,
    EngineName.REPLAY: replay.open_backend,
}


def open_backend(opening: Opening) -> Backend:
    """Raises UsageError, InputMissingError, EngineUnavailableError."""
    engine = opening.options.engine
    return servers.open_backend(opening) if parse_servers(engine) else BACKENDS[engine](opening)
