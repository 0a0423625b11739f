"""The feeder's side of a tunnel: starts the scheduler's process and answers when that asks for requests."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from types import TracebackType

from blendrun.engine.settings import process_environment
from blendrun.engine.tunnel.base import Failed, Poll, Started, TunnelLog, TunnelRequest, TunnelSettings
from blendrun.errors import EngineUnavailableError
from blendrun.scratch import sweep

_VARIABLES = {
    "SGLANG_EXTERNAL_MODEL_PACKAGE": "blendrun.engine.tunnel.models",
    # The scheduler's side puts the hooks in by itself, to time them.
    "SGLANG_PLUGINS": "blendrun_cpu",
    # Of packages that want a GPU.
    "PYTHONWARNINGS": "ignore",
}


class TunnelProcesses:
    """Starts scheduler processes that have imported SGLang already: forks of one that has."""

    def __init__(self) -> None:
        self._context: ForkServerContext = multiprocessing.get_context("forkserver")
        # In this order: the first one decides what the second imports.
        self._context.set_forkserver_preload(["blendrun.engine.cpu.lean", "blendrun.engine.tunnel.scheduler"])
        before = dict(os.environ)
        # It takes them when it starts; what else this process starts is not to have them.
        os.environ |= process_environment("cpu", 1) | _VARIABLES
        try:
            forkserver.ensure_running()
        finally:
            os.environ.clear()
            os.environ |= before

    def start(self, settings: TunnelSettings) -> Tunnel:
        """Raises EngineUnavailableError where the scheduler does not come up."""
        return Tunnel(self._context, settings)


class Tunnel:
    """One scheduler. `started`: what it says of itself."""

    def __init__(self, context: ForkServerContext, settings: TunnelSettings) -> None:
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, settings), daemon=True)
        self._process.start()
        theirs.close()
        first = self._receive()
        if not isinstance(first, Started):
            raise EngineUnavailableError(f"the scheduler did not start: {first!r}")
        self.started = first

    def __enter__(self) -> Tunnel:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._connection.close()
        self._process.kill()
        self._process.join()
        # What it could not remove itself.
        sweep(Path(tempfile.gettempdir()))

    def run(self, feed: Callable[[Poll], list[TunnelRequest] | None]) -> TunnelLog:
        """Answer polls until `feed` gives None. feed: requests to hand over at one.

        Raises EngineUnavailableError where the scheduler fails.
        """
        while isinstance(message := self._receive(), Poll):
            self._connection.send(feed(message))
        if not isinstance(message, TunnelLog):
            raise EngineUnavailableError(f"the scheduler said {message!r}")
        return message

    def _receive(self) -> object:
        try:
            message = self._connection.recv()
        except EOFError:
            raise EngineUnavailableError("the scheduler's process ended without a word") from None
        if isinstance(message, Failed):
            raise EngineUnavailableError(f"SGLang's scheduler failed:\n{message.message}")
        return message


def _serve(connection: Connection, settings: TunnelSettings) -> None:
    # What SGLang has to say of a start that is meant so; what goes wrong comes through the connection.
    with Path(os.devnull).open("w") as nothing:
        for descriptor in (1, 2):
            os.dup2(nothing.fileno(), descriptor)
    from blendrun.engine.tunnel.scheduler import serve

    serve(connection, settings)
