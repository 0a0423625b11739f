"""Objects of stores that fsspec reaches (s3, gs, az): read by ranges to a file, and written from one.

Who asks is for the store's own package to find out, from the environment and its own files.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from blendrun.errors import BlendrunError, UsageError
from blendrun.installed import install_command
from blendrun.remote.address import STORES, Address
from blendrun.remote.part import Part, Version
from blendrun.remote.tries import ChangedError, MissingError, PassingError, RefusedError, RemoteError
from blendrun.text import cut

RANGE_BYTES = 16 << 20
_SILENCE = logging.NullHandler()
# What a store calls the version of an object, the surest first.
_TAGS = ("ETag", "etag", "generation", "content_md5", "md5Hash")
_DATES = ("LastModified", "last_modified", "updated", "mtime")


def get(address: Address, part: Part, known: Version | None) -> bool:
    """What is there, into `part`, from where that stops if it is the same still.

    known: of a copy that is here. With it nothing is fetched, and the result is whether it is what is there.
    Raises RemoteError, UsageError; OSError where the part cannot be written.
    """
    store, path = _opened(address)
    with _errors(address):
        found = _version(store, path)
    if known is not None:
        return found == known
    if part.version != found:
        part.restart(found)
    with part.opened(part.size) as file:
        while found.size is None or part.size < found.size:
            with _errors(address):
                data: bytes = store.cat_file(path, start=part.size, end=part.size + RANGE_BYTES)
            if not data:
                break
            file.write(data)
    with _errors(address):
        after = _version(store, path)
    if after != found or part.size != (found.size or part.size):
        part.restart(None)
        raise ChangedError("changed while it was read")
    return True


def put(address: Address, path: Path) -> None:
    """The file at `path`, as an object; of a large one all parts or none. Raises RemoteError, UsageError."""
    store, target = _opened(address)
    with _errors(address):
        store.put_file(str(path), target)


def check(address: Address) -> None:
    """Raises UsageError where the package for it is not installed."""
    try:
        importlib.import_module("fsspec")
        importlib.import_module(STORES[address.scheme])
    except ImportError:
        raise UsageError(f"{address.shown} needs {STORES[address.scheme]}: {install_command('remote')}") from None


def _opened(address: Address) -> tuple[Any, str]:
    """The store and the path in it. Raises UsageError, RemoteError."""
    check(address)
    import fsspec

    # What it warns of with pages of text is an error here, told in a sentence.
    logging.getLogger(STORES[address.scheme]).addHandler(_SILENCE)

    with _errors(address):
        # Nothing is remembered of what was there a moment ago.
        store, path = fsspec.core.url_to_fs(address.text, use_listings_cache=False, skip_instance_cache=True)
    return store, str(path)


def _version(store: Any, path: str) -> Version:
    store.invalidate_cache()
    found = store.info(path)
    if found.get("type") == "directory":
        raise MissingError("is a folder; name the files in it")
    tag = next((str(found[name]) for name in _TAGS if found.get(name)), "")
    date = next((str(found[name]) for name in _DATES if found.get(name)), "")
    size = found.get("size")
    return Version(tag, date, int(size) if size is not None else None)


@contextmanager
def _errors(address: Address) -> Iterator[None]:
    """What stores raise, in a clause: each has exceptions of its own, and names tell them apart."""
    try:
        yield
    except (RemoteError, BlendrunError):
        raise
    except FileNotFoundError:
        raise MissingError("is not there") from None
    except Exception as error:  # noqa: BLE001  # whatever a package raises
        if isinstance(error, PermissionError) or any(word in type(error).__name__ for word in ("Credential", "Auth")):
            raise RefusedError(f"is refused: {_said(address, error)}") from None
        if isinstance(error, ValueError | TypeError | KeyError):
            raise RemoteError(f"cannot be had: {_said(address, error)}") from None
        raise PassingError(f"was not to be reached, or broke off: {_said(address, error)}") from None


def _said(address: Address, error: Exception) -> str:
    return cut(address.scrub(str(error)), 300) or type(error).__name__
