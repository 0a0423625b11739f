"""Inputs at addresses: their copies lie in a folder of the spool, each as the file that the address names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from blendrun.events import Listener
from blendrun.remote import fetch
from blendrun.remote.address import Address, is_address, parse_address

_FOLDER = "fetched"


def fetched(name: str, spool_folder: Path, listener: Listener) -> Path:
    """The copy of what lies at the address `name`. Raises as `remote.fetch.fetch` does."""
    return fetch.fetch(parse_address(name), spool_folder / _FOLDER, listener)


def copy_here(name: str, spool_folder: Path) -> str:
    """Where an input that a run has read lies: an address's copy, any other where it is."""
    return str(fetch.copy_of(Address(name.strip()), spool_folder / _FOLDER)) if is_address(name) else name


def forget_other_copies(names: Sequence[str], spool_folder: Path) -> None:
    """Remove copies of what is no input any more. For who holds the folder alone."""
    fetch.forget_others(spool_folder / _FOLDER, [Address(name.strip()) for name in names if is_address(name)])
