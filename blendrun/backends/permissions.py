"""From options of `blendrun run` to what request lines may reach: files, addresses, adapters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blendrun.backends.options import RunOptions
from blendrun.endpoints.adapters import declared_adapters
from blendrun.endpoints.pairs import Reads
from blendrun.endpoints.rules import Rules
from blendrun.engine.http.settings import parse_servers
from blendrun.engine.media.engine import MediaEngine
from blendrun.engine.media.fetch import MediaAccess
from blendrun.errors import UsageError
from blendrun.models.card import ModelCard
from blendrun.runner.replica import MakeEngine


def rules_of(
    options: RunOptions,
    arguments: dict[str, Any],
    card: ModelCard | None = None,
    unanswered: Mapping[Reads, str] | None = None,
) -> Rules:
    """What lines may ask for. arguments: of the engine. unanswered: as in `Rules`. Raises UsageError."""
    names = [options.model, arguments.get("served_model_name"), "default"]
    if card is not None:
        names += [card.alias, card.source.hub if card.source else None]
    return Rules(
        media_files=options.allow_media_files is not None,
        media_urls=options.allow_media_urls,
        media_folder=options.allow_media_files,
        adapters=declared_adapters(arguments.get("lora_paths")),
        unknown=None if parse_servers(options.engine) else options.unknown_fields,
        unanswered=unanswered or {},
        base=tuple(dict.fromkeys(name for name in names if isinstance(name, str))),
    )


def with_media(make_engine: MakeEngine, options: RunOptions) -> MakeEngine:
    """Engines whose lines have their media fetched, where a flag allows that. Raises UsageError."""
    access = _access(options)
    if access is None:
        return make_engine
    return lambda *wanted: MediaEngine(make_engine(*wanted), access)


def _access(options: RunOptions) -> MediaAccess | None:
    files, urls, private = options.allow_media_files, options.allow_media_urls, options.allow_private_media
    if private and not urls:
        raise UsageError("--allow-private-media widens --allow-media-urls; give both")
    if files is not None and not files.is_dir():
        raise UsageError(f"--allow-media-files {files}: there is no such folder")
    if files is None and not urls:
        return None
    return MediaAccess(files, urls, private)
