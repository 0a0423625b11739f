"""Whether a model is on this machine already. Looks, and fetches and converts nothing."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from blendrun.models.card import ModelCard
from blendrun.models.hub import cached_snapshot


def found_here(card: ModelCard) -> Path | None:
    """The folder in the hub's cache, or the file of the package that ships it; None where neither has all of it."""
    source = card.source
    if source is None:
        return None
    if (folder := cached_snapshot(source.hub, weights=True)) is not None:
        return folder
    package = find_spec(source.package) if source.package is not None else None
    for place in (package.submodule_search_locations or ()) if package is not None else ():
        for file in Path(place).rglob(source.file or ""):
            if file.is_file():
                return file
    return None
