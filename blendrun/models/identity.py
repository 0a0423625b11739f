"""Which model a folder holds: a hash that takes milliseconds and is the same wherever the folder lies."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

# What says that a folder is a LoRA adapter.
ADAPTER_CONFIG = "adapter_config.json"
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".gguf", ".pt", ".pth")
# What decides how a prompt becomes tokens and how an answer ends.
_TEXT_FILES = (
    "added_tokens.json",
    "chat_template*",
    "config.json",
    "conversion.json",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer*",
    "vocab*",
)
# Written by transformers beside what matters: its own version, and the path it once loaded the model from.
_INCIDENTAL_KEYS = ("_name_or_path", "_model_name_or_path", "name_or_path", "transformers_version")
_NORMALISED = ("config.json", "generation_config.json", "tokenizer_config.json")
_SHARD = re.compile(r"-\d+-of-(\d+)\.")
_SAMPLES = 8
_SAMPLE_BYTES = 4096
# Covers the metadata of a GGUF file (tokenizer and chat template included) for vocabularies of up to 256k.
_GGUF_HEAD_BYTES = 16 << 20


def folder_identity(folder: Path) -> str:
    """32 hex digits: equal where the answers of two runs may be mixed.

    Hashes the text files (configuration, tokenizer, chat template) whole, and of each weight file the name,
    the size and a few samples: two checkpoints of one training have the same names and sizes.
    """
    digest = blake2b(digest_size=16)
    for path in _text_files(folder):
        _feed(digest, path.name, _text_content(path))
    for path in weight_files(folder):
        _feed(digest, path.name, file_fingerprint(path).encode())
    return digest.hexdigest()


def adapter_identity(folder: Path) -> str:
    """32 hex digits: equal where a LoRA adapter in a folder is the same one."""
    digest = blake2b(digest_size=16)
    _feed(digest, ADAPTER_CONFIG, (folder / ADAPTER_CONFIG).read_bytes())
    for path in weight_files(folder):
        _feed(digest, path.name, file_fingerprint(path).encode())
    return digest.hexdigest()


def file_fingerprint(path: Path) -> str:
    """32 hex digits of a weight file's size and samples of its content; of GGUF also of all its metadata."""
    size = path.stat().st_size
    digest = blake2b(str(size).encode(), digest_size=16)
    with path.open("rb") as file:
        if path.suffix == ".gguf":
            digest.update(file.read(_GGUF_HEAD_BYTES))
        for step in range(_SAMPLES):
            file.seek(max(0, size - _SAMPLE_BYTES) * step // (_SAMPLES - 1), os.SEEK_SET)
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def weight_files(folder: Path) -> list[Path]:
    """The weight files an engine would load, by name: safetensors where there are any.

    `consolidated*` is the same model a second time, in its publisher's own layout.
    """
    present = sorted(path for path in folder.iterdir() if path.is_file())
    for suffixes in ((".safetensors",), WEIGHT_SUFFIXES):
        found = [p for p in present if p.suffix in suffixes and not p.name.startswith("consolidated")]
        if found:
            return found
    return []


def weights_complete(folder: Path) -> bool:
    """Whether every weight file is there that the folder's index names, or that a shard's own name counts."""
    indexes = [path for path in folder.glob("*.index.json") if not path.name.startswith("consolidated")]
    if indexes:  # some repositories have one for safetensors and one for .bin
        return any(_all_there(folder, index) for index in indexes)
    files = weight_files(folder)
    counted = [int(match[1]) for match in map(_SHARD.search, (path.name for path in files)) if match]
    return bool(files) and (not counted or len(counted) >= max(counted))


def _all_there(folder: Path, index: Path) -> bool:
    shards = set(json.loads(index.read_bytes()).get("weight_map", {}).values())
    return bool(shards) and all((folder / shard).is_file() for shard in shards)


def _text_files(folder: Path) -> Iterator[Path]:
    names = {path for pattern in _TEXT_FILES for path in folder.glob(pattern) if path.is_file()}
    yield from sorted(names)


def _text_content(path: Path) -> bytes:
    content = path.read_bytes()
    if path.name not in _NORMALISED:
        return content
    try:
        data: Any = json.loads(content)
    except ValueError:
        return content
    if not isinstance(data, dict):
        return content
    kept = {key: value for key, value in data.items() if key not in _INCIDENTAL_KEYS}
    return json.dumps(kept, sort_keys=True).encode()


def _feed(digest: blake2b, name: str, content: bytes) -> None:
    digest.update(f"{name}\0{len(content)}\0".encode())
    digest.update(content)
