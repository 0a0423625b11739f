"""What a run has written, sent to addresses: each content once, and noted when it has arrived."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from blendrun.errors import OutputUnavailableError, unreadable
from blendrun.events import Listener, Note
from blendrun.files import write_atomically
from blendrun.remote.address import Address
from blendrun.remote.send import send
from blendrun.remote.tries import PassingError, RefusedError, RemoteError
from blendrun.store.folder import StateFolder, path_text
from blendrun.store.own_files import ERRORS, OUTPUT, record_of


@dataclass(frozen=True, slots=True)
class Upload:
    """Where the output goes, and the errors file; None where that stays here."""

    output: Address
    errors: Address | None = None


class SentFile(msgspec.Struct, frozen=True):
    """A file that has arrived. name: output or errors; address: without what is secret in it; key: a digest of it, its
    signature left out. size, digest: of the content (BLAKE2b, hex). sent_at: Unix seconds.
    """

    name: str
    address: str
    key: str
    size: int
    digest: str
    sent_at: int


@dataclass(frozen=True, slots=True)
class Parcel:
    """A file that is to be sent, as it is now."""

    path: Path
    address: Address
    name: str
    size: int
    digest: str


def parcels(state: StateFolder, upload: Upload, listener: Listener) -> list[Parcel]:
    """What has not arrived yet of the output and the errors file. Raises OutputUnavailableError."""
    wanted = [(OUTPUT, state.output, upload.output)]
    sent = _read(state.uploads)
    if state.errors.exists():
        if upload.errors is not None:
            wanted.append((ERRORS, state.errors, upload.errors))
        else:
            listener(Note(f"{path_text(state.errors)} stays here: --upload-errors names an address for it"))
    elif upload.errors is not None and any(each.key == upload.errors.key for each in sent):
        listener(Note(f"{upload.errors.shown} has errors of before; there are none now", warning=True))
    return [found for name, path, address in wanted if (found := parcel(state, name, path, address)) is not None]


def parcel(state: StateFolder, name: str, path: Path, address: Address) -> Parcel | None:
    """A file as it is to be sent; None where the same has arrived. Raises OutputUnavailableError."""
    try:
        written = record_of(name, path)
    except OSError as error:
        raise unreadable(path_text(path), error, "the same command sends it") from error
    arrived = any(
        (each.key, each.size, each.digest) == (address.key, written.size, written.digest)
        for each in _read(state.uploads)
    )
    return None if arrived else Parcel(path, address, name, written.size, written.digest)


def deliver(state: StateFolder, parcel: Parcel, listener: Listener) -> None:
    """Send it, and note that it has arrived. For who holds the lock. Raises OutputUnavailableError, UsageError."""
    address, path = parcel.address, path_text(parcel.path)
    try:
        send(parcel.path, address, listener)
    except RemoteError as error:
        raise OutputUnavailableError(f"{_why(address, error)}; it lies in {path}, and {_SAME}") from error
    except OSError as error:
        raise unreadable(path, error, _SAME) from error
    sent = SentFile(parcel.name, address.shown, address.key, parcel.size, parcel.digest, int(time.time()))
    others = [each for each in _read(state.uploads) if each.key != address.key]
    write_atomically(state.uploads, msgspec.json.format(msgspec.json.encode([*others, sent]), indent=2) + b"\n")
    listener(Note(f"{path} is at {address.shown} now"))


_SAME = "the same command sends it, without asking an engine again"


def _why(address: Address, error: RemoteError) -> str:
    hint = ""
    if isinstance(error, RefusedError):
        hint = " (is its signature for a PUT, and still good? a fresh one may be given)"
    elif not isinstance(error, PassingError):
        hint = " (check the address)"
    return f"cannot upload to {address.shown}: it {error}{hint}"


def _read(path: Path) -> list[SentFile]:
    """Nothing where that cannot be read: what is sent once more is the same."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[SentFile])
    except (OSError, msgspec.DecodeError):
        return []
