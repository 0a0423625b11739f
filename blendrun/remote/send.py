"""A file to an address: once, and again only where that came to nothing."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from blendrun.events import Listener, PhaseStarted
from blendrun.remote.address import Address
from blendrun.remote.tries import persist


def send(path: Path, address: Address, listener: Listener) -> None:
    """Raises RemoteError where it did not arrive, UsageError, OSError where the file cannot be read."""
    listener(PhaseStarted("upload", address.shown))
    persist(partial(_put, address, path), address, listener)


def check_sendable(address: Address) -> None:
    """Before any work: raises UsageError where what is needed for it is not installed."""
    if not address.http:
        from blendrun.remote import stores

        stores.check(address)


def _put(address: Address, path: Path) -> None:
    if address.http:
        from blendrun.remote import http

        http.put(address, path)
        return
    from blendrun.remote import stores

    stores.put(address, path)
