"""Which requests are equal and which answers may be kept, for an engine with the options of a run or a plan."""

from __future__ import annotations

import json
import re
from datetime import date
from hashlib import blake2b
from pathlib import Path
from typing import Any

from blendrun.errors import UsageError
from blendrun.jobs.same import Sameness
from blendrun.models.identity import folder_identity
from blendrun.names import Dedupe
from blendrun.runner.settings import CacheSettings
from blendrun.tokens.load import own_template
from blendrun.tokens.template import uses_today
from blendrun.version import __version__

DEFAULT_SIZE = "10G"
# A smaller file holds next to nothing.
_LEAST_SIZE = 1 << 20
_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
_CHAT = "/v1/chat/completions"


def parse_size(given: str | int) -> int:
    """Bytes of `--cache-size`: a number, or one with K, M, G or T (of 1024). Raises UsageError."""
    found = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*([KMGT]?)(?:i?B)?", str(given).strip(), re.IGNORECASE)
    size = int(float(found[1]) * (1 << _UNITS[found[2].upper()])) if found else 0
    if not _LEAST_SIZE <= size < 1 << 62:
        raise UsageError(f"--cache-size {given}: give bytes, 1M at least, such as 500M or 20G")
    return size


def sameness(dedupe: Dedupe, greedy: frozenset[str], *, keeps: bool) -> Sameness | None:
    """None where nobody asks. greedy: see `Sameness`. keeps: whether there is a cache."""
    return Sameness(dedupe, greedy, keeps) if keeps or dedupe is not Dedupe.OFF else None


def greedy_urls(folder: Path, arguments: dict[str, Any]) -> frozenset[str]:
    """Urls at which SGLang decodes greedily where a line has no `temperature`.

    A chat takes the default of the model's generation_config.json, and 1 where there is none; a completion takes 1
    (0.5.23, model_config.py:get_default_sampling_params, protocol.py). folder: of the model. arguments: of the engine.
    """
    if arguments.get("sampling_defaults", "model") != "model":
        return frozenset()
    try:
        config = json.loads((folder / "generation_config.json").read_bytes())
        return frozenset((_CHAT,) if config["temperature"] == 0 else ())
    except (OSError, ValueError, KeyError, TypeError):
        return frozenset()


def apart_of(folder: Path, arguments: dict[str, Any]) -> tuple[str, ...]:
    """What decides answers of SGLang's engine and is neither the model nor in the arguments: the content of files that
    these name, and the day, where the chat template writes it. folder: of the model.
    """
    found = []
    if (template := own_template(folder, arguments.get("chat_template"))) is not None:
        found.append(blake2b(template.encode(), digest_size=16).hexdigest())
        found += [date.today().isoformat()] if uses_today(template) else []
    adapters = arguments.get("lora_paths")
    for entry in adapters.values() if isinstance(adapters, dict) else adapters or ():
        place = entry.get("lora_path") if isinstance(entry, dict) else str(entry).rpartition("=")[2]
        if place and Path(place).is_dir():
            found.append(folder_identity(Path(place)))
    return tuple(found)


def cache_settings(
    folder: Path | None, size: str | int, versions: dict[str, str], apart: tuple[str, ...]
) -> CacheSettings | None:
    """None without a folder. versions: of the engine's packages. apart: see `Backend`. Raises UsageError."""
    if folder is None:
        return None
    named = (f"{name} {version}" for name, version in sorted({"blendrun": __version__, **versions}.items()))
    return CacheSettings(folder, parse_size(size), (*named, *apart))
