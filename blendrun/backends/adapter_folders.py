"""LoRA adapters of an engine of this command: that they are where the user says, and which they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from blendrun.endpoints.adapters import adapter_paths
from blendrun.errors import UsageError
from blendrun.models.identity import ADAPTER_CONFIG, adapter_identity
from blendrun.paths import at_home


def with_folders(arguments: dict[str, Any]) -> dict[str, Any]:
    """The engine's arguments with `~` in paths of adapters read. Raises UsageError where a folder holds no adapter.

    A path that is none (`OWNER/NAME`) is the hub's, and SGLang's to find.
    """
    given = arguments.get("lora_paths")
    paths = {name: at_home(path) for name, path in adapter_paths(given).items()}
    for name, path in paths.items():
        if _is_path(path) and not (Path(path) / ADAPTER_CONFIG).is_file():
            raise UsageError(f"the adapter {name}: there is no {ADAPTER_CONFIG} in {path}")
    changed = paths != adapter_paths(given)
    return arguments | {"lora_paths": paths} if changed else arguments


def identities(arguments: dict[str, Any]) -> dict[str, Any]:
    """By name, which adapters lie in folders: for the settings that decide answers. Empty where there are none."""
    folders = {name: Path(path) for name, path in adapter_paths(arguments.get("lora_paths")).items()}
    found = {name: adapter_identity(folder) for name, folder in folders.items() if (folder / ADAPTER_CONFIG).is_file()}
    return {"adapters": found} if found else {}


def _is_path(text: str) -> bool:
    return text.startswith((".", "/")) or text.count("/") != 1 or Path(text).is_dir()
