"""A server from its options to its end."""

from __future__ import annotations

import os
import secrets
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blendrun.backends.options import RunOptions
from blendrun.errors import UsageError, unwritable
from blendrun.files import write_atomically
from blendrun.service.store import Store
from blendrun.service.validation import Limits

_HOST = "127.0.0.1"
# What is in flight may take so long where a batch joins a job. Where one is to end, it is told a second time.
_DRAIN_S = 300.0
# Clients at once; more are told to come again.
_MOST_CLIENTS = 512


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """run: options of each run. port: 0 for a free one. keys: that are let in; none: one that is made and kept.

    idle: seconds without work after which the engine is let go, None for never.
    """

    store: Path
    run: Mapping[str, Any]
    port: int = 8080
    keys: tuple[str, ...] = ()
    idle: float | None = None
    limits: Limits = field(default_factory=Limits)


def serve(asked: ServeOptions) -> None:
    """Serve until a signal ends it. Raises UsageError, OutputUnavailableError."""
    try:
        import uvicorn

        from blendrun.service.app import Service
        from blendrun.service.clients import PatientProtocol
        from blendrun.service.desk import Desk
        from blendrun.service.jobs import Jobs
        from blendrun.service.named import Named
        from blendrun.service.reports import Reports
    except ImportError as error:
        raise UsageError(f"serve needs {error.name}, which SGLang brings: see `blendrun doctor`") from error

    def options(job: Path, output: Path, owners: int) -> RunOptions:
        # A batch that ended early is no longer in the job.
        fixed = {"inputs": (str(job),), "output": output, "accept_changes": True, "drain_timeout": _DRAIN_S}
        if owners > 1:
            # A copy is marked as one, and names the request that was asked: another key's, perhaps.
            fixed["dedupe"] = "off"
        return RunOptions.of({**asked.run, **fixed})

    any_run = options(Path("job"), Path("answers"), 1)
    label = any_run.label
    store = Store(asked.store)
    keys = asked.keys or (_own_key(asked.store / "key"),)
    desk = Desk(store, Jobs(store, options), asked.limits, Named(any_run), asked.idle)
    server = uvicorn.Server(
        uvicorn.Config(
            Service(store, desk, keys, label, asked.limits, Reports(store)).app(),
            host=_HOST,
            port=asked.port,
            # What clients do wrong is told to them.
            log_level="error",
            http=PatientProtocol,
            # None is spoken, and whoever speaks one would be out of that one's hands.
            ws="none",
            limit_concurrency=_MOST_CLIENTS,
            timeout_graceful_shutdown=5,
        )
    )
    listening = server.config.bind_socket()
    address = f"http://{_HOST}:{listening.getsockname()[1]}"
    sys.stderr.write(f"blendrun: batches of {label} at {address}/v1 (a page for people at {address}/)\n")
    if not asked.keys:
        sys.stderr.write(f"blendrun: the key is in {asked.store / 'key'}\n")
    sys.stderr.flush()
    # uvicorn hands a signal on once it has stopped for it: to nobody, so that the exit code is 0.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    server.run(sockets=[listening])


def _own_key(path: Path) -> str:
    """Of a store, made once. Raises OutputUnavailableError."""
    try:
        if path.exists() and (found := path.read_text(encoding="utf-8", errors="replace").strip()):
            return found
    except OSError as error:
        raise unwritable(path, error, "start the server again") from error
    key = f"br-{secrets.token_urlsafe(32)}"
    write_atomically(path, key.encode() + b"\n")
    return key


def keys_of(given: Sequence[str] | None) -> tuple[str, ...]:
    """Those on the command line, or those in BLENDRUN_API_KEY (between commas). Raises UsageError for empty ones."""
    keys = [each.strip() for each in given or ()]
    if not all(keys):
        raise UsageError("--api-key is empty: give one that is not, or leave it out and a key is made")
    named = (each.strip() for each in os.environ.get("BLENDRUN_API_KEY", "").split(","))
    return tuple(keys) or tuple(each for each in named if each)
