"""The Hugging Face hub: what its local cache holds, and downloads that fail fast where they cannot work."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from blendrun.errors import BlendrunError, InputMissingError, OutputUnavailableError
from blendrun.events import Listener, PhaseStarted, ignore
from blendrun.installed import install_command
from blendrun.models.identity import weights_complete

_TEXT_PATTERNS = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken")
# The same weights again in other layouts, which some repositories carry beside the loadable ones.
_SECOND_COPIES = ("original/*", "consolidated*", "metal/*", "onnx/*", "*.gguf", "openvino/*")
# What decides an answer beside the weights. A cached copy may lack other files of its repository, not these.
_ESSENTIAL = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template*",
)
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tiktoken.model", "tekken.json")
_ANSWER_WITHIN_S = 10


def cached_snapshot(hub_id: str, *, weights: bool) -> Path | None:
    """The folder of a complete copy in the local Hugging Face cache, or None. Touches no network."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        return None
    try:
        folder = Path(snapshot_download(hub_id, local_files_only=True, allow_patterns=list(_ESSENTIAL)))
    except (OSError, ValueError):  # not there or not whole, or no valid id
        return None
    return folder if is_loadable(folder, weights=weights) else None


def is_loadable(folder: Path, *, weights: bool) -> bool:
    """Whether the folder has a configuration, a tokenizer and, with `weights`, every weight file."""
    if not (folder / "config.json").is_file():
        return False
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        return False
    return not weights or weights_complete(folder)


def offline() -> bool:
    """Whether the user has forbidden downloads."""
    return any(
        os.environ.get(name, "").lower() in ("1", "true", "yes", "on")
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    )


def fetch_snapshot(hub_id: str, *, weights: bool, otherwise: str, listener: Listener = ignore) -> Path:
    """Download a model (without `weights`: configuration and tokenizer only) and return its folder.

    otherwise: what the user can do instead; it ends every message.
    Raises InputMissingError for any failure, but OutputUnavailableError where the disk is full.
    """
    try:
        from huggingface_hub import HfApi, snapshot_download
    except ImportError as error:
        raise InputMissingError(
            f"{hub_id} is not on this machine; to fetch it `{install_command('sglang')}`; or {otherwise}"
        ) from error
    try:
        # One request first: without a network, snapshot_download would try again for minutes.
        files = {file.rfilename for file in HfApi().model_info(hub_id, timeout=_ANSWER_WITHIN_S).siblings or ()}
        listener(PhaseStarted("model", f"downloading {hub_id} from the Hugging Face hub"))
        patterns = _TEXT_PATTERNS + (_weight_patterns(files) if weights else ())
        folder = Path(snapshot_download(hub_id, allow_patterns=list(patterns), ignore_patterns=list(_SECOND_COPIES)))
    # requests or httpx below, by version, each with its own tree of network errors.
    except Exception as error:
        raise _failure(hub_id, error, otherwise) from error
    if not is_loadable(folder, weights=weights):
        raise InputMissingError(f"{hub_id} has no config.json, tokenizer or weights to load; {otherwise}")
    return folder


def _weight_patterns(files: set[str]) -> tuple[str, ...]:
    return ("*.safetensors",) if any(name.endswith(".safetensors") for name in files) else ("*.bin",)


def _failure(hub_id: str, error: Exception, otherwise: str) -> BlendrunError:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return OutputUnavailableError(f"the disk is full while downloading {hub_id}: free space or set HF_HOME")
    known = f"log in with `hf auth login` or set HF_TOKEN; or {otherwise}"
    if isinstance(error, GatedRepoError):
        return InputMissingError(f"{hub_id} is gated: accept its licence on the hub, {known}")
    if isinstance(error, RepositoryNotFoundError):
        return InputMissingError(f"the hub shows no {hub_id}: check the spelling, {known}")
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    return InputMissingError(f"{hub_id} is not on this machine and the hub cannot be reached ({reason}): {otherwise}")
