"""Inputs of the Hugging Face hub: `hf://datasets/OWNER/NAME` and files of it become files of the hub's local cache."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from blendrun.errors import InputInvalidError, InputMissingError, UsageError
from blendrun.events import Listener, PhaseStarted
from blendrun.installed import install_command

_HUB = "hf://"
_NAMED = re.compile(r"hf://datasets/([^/@\s]+/[^/@\s]+)(?:@([^/\s]+))?(?:/(.+))?")
_SUFFIXES = (".parquet", ".jsonl", ".csv", ".tsv", ".json")
_PACKED = (".gz", ".zst")
# What tells files of one split apart: train-00000-of-00003.parquet.
_PART = re.compile(r"-\d+-of-\d+|-\d+(?=\.)")
_ANSWER_WITHIN_S = 10
_SHOWN = 8
_OTHERWISE = "download the files elsewhere, and name them here"


def on_hub(inputs: Sequence[str]) -> bool:
    """Whether any of the inputs is there."""
    return any(name.startswith(_HUB) for name in inputs)


def with_hub_files(inputs: Sequence[str], listener: Listener) -> tuple[str, ...]:
    """The inputs with paths in the place of data sets of the hub, which are downloaded where they are not here.

    Raises UsageError (no such address, several splits), InputMissingError (not there, or no network),
    InputInvalidError (a data set without files that can be read).
    """
    found: list[str] = []
    for name in inputs:
        found += _files(name, listener) if name.startswith(_HUB) else [name]
    return tuple(found)


def _files(address: str, listener: Listener) -> list[str]:
    parts = _NAMED.fullmatch(address)
    if parts is None:
        raise UsageError(f"{address}: a data set of the hub is hf://datasets/OWNER/NAME, or a file of it behind that")
    name, revision, pattern = parts[1], parts[2], parts[3]
    try:
        from huggingface_hub import HfApi, snapshot_download
    except ImportError as error:
        raise UsageError(f"{address} needs huggingface-hub: {install_command('tables')}") from error
    try:
        # One request first: without a network a download would try again for minutes.
        info = HfApi().dataset_info(name, revision=revision, timeout=_ANSWER_WITHIN_S)
        chosen = files_meant(address, [file.rfilename for file in info.siblings or ()], pattern)
        listener(PhaseStarted("fetch", f"{address}, {len(chosen)} files"))
        folder = Path(snapshot_download(name, repo_type="dataset", revision=revision, allow_patterns=chosen))
        return [str(folder / file) for file in chosen]
    except (UsageError, InputInvalidError):
        raise
    # requests or httpx below, by version, each with its own tree of network errors.
    except Exception as error:
        if (kept := _cached(name, revision)) is not None:
            return [str(kept / file) for file in files_meant(address, _listed(kept), pattern)]
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputMissingError(f"{address} cannot be had from the hub ({reason}); {_OTHERWISE}") from error


def files_meant(address: str, files: Sequence[str], pattern: str | None) -> list[str]:
    """The files of a data set that are meant, in the order of their names. pattern: a path, a folder, or with `*`."""
    known = sorted(file for file in files if _suffix(file) in _SUFFIXES)
    if pattern is not None:
        named = [file for file in known if fnmatchcase(file, pattern) or file.startswith(f"{pattern.rstrip('/')}/")]
        if not named:
            raise InputInvalidError(f"{address}: no such file; there are {_some(known)}")
        return named
    suffixes = [suffix for suffix in _SUFFIXES if any(_suffix(file) == suffix for file in known)]
    if not suffixes:
        raise InputInvalidError(f"{address} has no file of {', '.join(_SUFFIXES)}")
    known = [file for file in known if _suffix(file) == suffixes[0]]
    if len({_PART.sub("", file) for file in known}) > 1:
        example = _PART.sub("*", known[-1])
        raise UsageError(f"{address} has several parts; say which, as {address}/{example}: {_some(known)}")
    return known


def _suffix(file: str) -> str:
    path = Path(file)
    return Path(path.stem).suffix.lower() if path.suffix in _PACKED else path.suffix.lower()


def _some(files: Sequence[str]) -> str:
    return ", ".join(files[:_SHOWN]) + (f", … ({len(files)} in all)" if len(files) > _SHOWN else "") or "none"


def _cached(name: str, revision: str | None) -> Path | None:
    """The folder of what was downloaded before."""
    from huggingface_hub.constants import HF_HUB_CACHE

    kept = Path(HF_HUB_CACHE) / f"datasets--{name.replace('/', '--')}"
    try:
        commit = (kept / "refs" / (revision or "main")).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        commit = revision or ""
    folder = kept / "snapshots" / commit
    return folder if commit and folder.is_dir() else None


def _listed(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
