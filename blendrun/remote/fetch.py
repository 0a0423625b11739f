"""What lies at an address, as a file in a folder: fetched once, looked at again by each command.

Two files an address, named by its digest: the copy (with the suffixes of its name), or the part of it that is there,
and a note of its version.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from functools import partial
from pathlib import Path

from blendrun.errors import BlendrunError, InputInvalidError, InputMissingError, unwritable
from blendrun.events import Listener, PhaseStarted, Progress
from blendrun.events import Note as Said
from blendrun.remote.address import Address
from blendrun.remote.part import Part, Version, read_note
from blendrun.remote.tries import ChangedError, MissingError, PassingError, RefusedError, RemoteError, persist

PART, NOTE = ".part", ".note"
# Of looking whether a copy is still what is there: it can be done without.
_LOOKS = 2
# Versions that may come one after the other while one is being fetched.
_CHANGES = 3
_TOLD_BYTES = 4 << 20


def copy_of(address: Address, folder: Path) -> Path:
    """Where the copy is, or will be."""
    return folder / f"{address.key}{address.suffixes or '.data'}"


def fetch(address: Address, folder: Path, listener: Listener) -> Path:
    """The copy, made now, gone on with, or found to be what is there still.

    A copy that cannot be compared any more (the signature has run out, the server is away) is used, with a warning.
    Raises InputMissingError, InputInvalidError (it changes all the time), OutputUnavailableError (no room), UsageError.
    """
    copy, note = copy_of(address, folder), folder / f"{address.key}{NOTE}"
    listener(PhaseStarted("fetch", address.shown))
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = Part(folder / f"{address.key}{PART}", note, _Told(listener))
        if part.whole:
            # A kill came before it had its name.
            part.finish(copy)
        known = _known(copy, note)
        if known is None or _changed(address, part, known, listener):
            _fetch_whole(address, part, listener)
            part.finish(copy)
        return copy
    except OSError as error:
        raise unwritable(folder, error, "the same command goes on") from error
    except RemoteError as error:
        raise _refusal(address, error) from error


def _changed(address: Address, part: Part, known: Version, listener: Listener) -> bool:
    """Whether the copy of that version is no more what is there, as far as that can be seen."""
    try:
        return not persist(partial(_get, address, part, known), address, listener, tries=_LOOKS)
    except RemoteError as error:
        listener(Said(f"{address.shown} {error}; the copy that is here goes on being used", warning=True))
        return False


def forget_others(folder: Path, keep: Collection[Address]) -> None:
    """Remove what was fetched from other addresses. What cannot be removed stays."""
    keys = {address.key for address in keep}
    with suppress(OSError):
        for path in list(folder.iterdir()):
            if path.name.partition(".")[0] not in keys:
                path.unlink(missing_ok=True)


def _known(copy: Path, note: Path) -> Version | None:
    """The version of a copy that is whole, and can be asked after; None where it has to be fetched."""
    kept = read_note(note)
    if kept is None or not kept.whole or not (kept.version.tag or kept.version.date):
        return None
    size = kept.version.size
    try:
        whole = size is None or copy.stat().st_size == size
    except OSError:
        return None
    return kept.version if whole else None


def _fetch_whole(address: Address, part: Part, listener: Listener) -> None:
    for _ in range(_CHANGES):
        with suppress(ChangedError):
            persist(partial(_get, address, part, None), address, listener, progress=lambda: part.size)
            return
    raise InputInvalidError(f"{address.shown} changes while it is read; run again when it is complete")


def _get(address: Address, part: Part, known: Version | None) -> bool:
    """With `known`, whether what is there is that still; else all of it is in `part`, and True."""
    if address.http:
        from blendrun.remote import http

        return http.get(address, part, known)
    from blendrun.remote import stores

    return stores.get(address, part, known)


def _refusal(address: Address, error: RemoteError) -> BlendrunError:
    if isinstance(error, MissingError):
        return InputMissingError(f"{address.shown} {error}; check the address")
    if isinstance(error, RefusedError):
        return InputMissingError(f"{address.shown} {error}; is its signature still good, or a key missing?")
    if isinstance(error, PassingError):
        return InputMissingError(f"{address.shown} {error}; the same command goes on from what has come")
    return InputMissingError(f"{address.shown} {error}")


class _Told:
    """Tells the progress every few megabytes."""

    def __init__(self, listener: Listener) -> None:
        self._listener, self._next = listener, 0

    def __call__(self, done: int, total: int) -> None:
        if done >= self._next or done == total:
            self._next = done + _TOLD_BYTES
            self._listener(Progress(done, total, "bytes"))
