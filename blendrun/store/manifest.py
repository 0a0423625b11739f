"""The manifest: what a run's answers depend on, written at its start and compared at every resume."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec
import orjson

from blendrun.errors import BlendrunError, ManifestMismatchError, unreadable
from blendrun.files import write_atomically
from blendrun.remote.address import local_paths
from blendrun.store.own_files import WrittenFile

SCHEMA_VERSION = 1
_WORDS = {
    "input_fingerprint": "the input",
    "model_identity": "the model",
    "engine": "the engine",
    "answer_settings": "settings that decide the answers",
    "shard": "the shard",
}


class Manifest(msgspec.Struct, frozen=True):
    """schema_version 1.

    versions: of blendrun and the engine's packages; recorded, not compared.
    input_fingerprint: hash over all request lines. limit: rows taken, or None for all.
    model_identity: hash of the model's configuration, tokenizer and weights' names and sizes.
    answer_settings: engine arguments that can change an answer (capacity settings are not among them).
    shard: "2/8" where the run is one of several; division: digest of how they divide the job.
    written: output and errors file as the run has written them, the newest last; where it was killed while it wrote
        them, also those before. tables: what changes with each table whose columns are in the output; of those that it
        was written from.
    """

    schema_version: int
    versions: dict[str, str]
    inputs: tuple[str, ...]
    input_fingerprint: str
    limit: int | None
    model: str
    model_identity: str
    engine: str
    answer_settings: dict[str, Any]
    shard: str | None = None
    division: str | None = None
    written: tuple[WrittenFile, ...] = ()
    tables: tuple[str, ...] = ()

    @property
    def salt(self) -> bytes:
        """What decides an answer besides its request, hashed: part of the key of finished work."""
        return salt_of(self.model_identity, self.engine, self.answer_settings)

    def records(self, name: str) -> tuple[WrittenFile, ...]:
        """Of the output or of the errors file."""
        return tuple(each for each in self.written if each.name == name)


def salt_of(model_identity: str, engine: str, answer_settings: dict[str, Any]) -> bytes:
    """16 bytes: what decides an answer besides its request, hashed. Arguments as in `Manifest`."""
    parts = (model_identity, engine, answer_settings)
    return blake2b(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS), digest_size=16).digest()


def read_inputs(path: Path) -> tuple[Path, ...]:
    """Inputs of the run whose manifest it is that are files here; none where it cannot be read."""
    try:
        found = read(path)
    except BlendrunError:
        found = None
    return () if found is None else local_paths(found.inputs)


class _Version(msgspec.Struct):
    schema_version: int


def read(path: Path, *, accept_changes: bool = False) -> Manifest | None:
    """The manifest at `path`, None where there is none.

    Raises OutputUnavailableError where it cannot be read, ManifestMismatchError for one that is not understood. With
    accept_changes that one counts as none: answers are kept by content, so those that still fit are known without it.
    """
    try:
        text = path.read_bytes()
        version = msgspec.json.decode(text, type=_Version).schema_version
        if version != SCHEMA_VERSION:
            raise msgspec.DecodeError(f"schema version {version}, this blendrun reads {SCHEMA_VERSION}")
        return msgspec.json.decode(text, type=Manifest)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(path, error, "the same command resumes") from error
    except msgspec.DecodeError as error:
        if accept_changes:
            return None
        raise ManifestMismatchError(
            f"{path} is damaged or of another version ({error}); go on with the blendrun that wrote it, or "
            "--accept-changes to keep the answers that still fit, or use --no-resume to start over"
        ) from error


def check(old: Manifest, new: Manifest, *, accept_changes: bool, same_input: bool = False) -> None:
    """Raises ManifestMismatchError, naming what changed, unless answers of `old` may stand beside those of `new`.

    Answers are kept by content, so with accept_changes those that still fit are used and the rest is run again.
    same_input: whether the lines are alike that both have read; it counts where their limits are different.
    """
    changed = [
        f"{word} ({_short(getattr(old, name))} then, {_short(getattr(new, name))} now)"
        for name, word in _WORDS.items()
        if getattr(old, name) != getattr(new, name)
        # Another limit reads more lines, or fewer, of the same input.
        and not (name == "input_fingerprint" and old.limit != new.limit and same_input)
    ]
    if changed and not accept_changes:
        raise ManifestMismatchError(
            f"this output was begun with other inputs or settings; what changed: {'; '.join(changed)}. Give another "
            "-o, or --accept-changes to keep the answers that still fit, or --no-resume to start over"
        )


def write(path: Path, manifest: Manifest) -> None:
    write_atomically(path, msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")


def _short(value: object) -> str:
    return str(value)[:12] if isinstance(value, str) else repr(value)
