"""GGUF to a float32 folder that every engine loads: once per file, in a process of its own.

The process (`python -m blendrun.models.gguf SOURCE TARGET`) imports torch; the module does not, so the
command that asked for a model stays light. A folder appears whole or not at all, and two commands at once
convert once.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from filelock import FileLock

from blendrun.errors import (
    BlendrunError,
    EngineUnavailableError,
    InputMissingError,
    OutputUnavailableError,
)
from blendrun.events import Listener, PhaseStarted, ignore
from blendrun.installed import install_command
from blendrun.models.identity import file_fingerprint

# Part of a converted copy's name: raise it when the conversion's result changes.
CONVERTER_VERSION = 1
RECORD = "conversion.json"

# Exit codes of the converting process; the last line on stderr is the reason.
_RUNTIME_MISSING = 3
_CANNOT_WRITE = 4
_CANNOT_READ = 5


def dequantise(gguf_file: Path, target: Path, listener: Listener = ignore) -> None:
    """Make `target` a folder with the model in float32, its tokenizer, chat template and generation config.

    Does nothing where `target` is there already. Raises InputMissingError for a file that cannot be read,
    EngineUnavailableError without transformers and gguf, OutputUnavailableError where the copy cannot go.
    """
    if (target / RECORD).is_file():
        return
    if not gguf_file.is_file():
        raise InputMissingError(f"there is no file {gguf_file}: give a GGUF file or a model folder")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.parent / f".{target.name}.lock"):
            if not (target / RECORD).is_file():
                _convert_and_publish(gguf_file, target, listener)
    except OSError as error:
        raise OutputUnavailableError(
            f"cannot write the converted model to {target.parent} ({error.strerror or error}): "
            "free some space or set BLENDRUN_CACHE to another folder"
        ) from error


def _convert_and_publish(gguf_file: Path, target: Path, listener: Listener) -> None:
    """Convert into a folder beside `target`, then rename. The caller holds the lock: other tries are dead."""
    if target.exists():
        raise OutputUnavailableError(f"{target} is there and is no converted model: remove it")
    for leftover in target.parent.glob(f".{target.name}.partial-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    staging = target.parent / f".{target.name}.partial-{os.getpid()}"
    listener(PhaseStarted("model", f"converting {gguf_file.name} to float32, once"))
    try:
        _run_converter(gguf_file, staging)
        record = {
            "source": gguf_file.name,
            "fingerprint": file_fingerprint(gguf_file),
            "converter": CONVERTER_VERSION,
        }
        (staging / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _run_converter(gguf_file: Path, folder: Path) -> None:
    package_root = str(Path(__file__).resolve().parents[2])
    search_path = os.pathsep.join(filter(None, (package_root, os.environ.get("PYTHONPATH"))))
    environment = {
        **os.environ,
        "PYTHONPATH": search_path,
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }
    # -P: a file called torch.py in the user's folder is none of our business.
    command = [sys.executable, "-P", "-m", __name__, str(gguf_file.resolve()), str(folder)]
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise _failure(done.returncode, lines[-1] if lines else "no reason given", gguf_file, folder)


def _failure(code: int, reason: str, gguf_file: Path, folder: Path) -> BlendrunError:
    reason = textwrap.shorten(reason, 300)
    if code == _RUNTIME_MISSING:
        return EngineUnavailableError(
            f"converting {gguf_file.name} needs the runtime ({reason}): {install_command('sglang')}"
        )
    if code == _CANNOT_WRITE:
        return OutputUnavailableError(
            f"cannot write the converted model to {folder.parent} ({reason}): "
            "free some space or set BLENDRUN_CACHE to another folder"
        )
    if code == _CANNOT_READ:
        return InputMissingError(f"{gguf_file} cannot be converted ({reason}): fetch it again or give a model folder")
    if code < 0:
        return EngineUnavailableError(
            f"converting {gguf_file.name} was killed by signal {-code}: it takes about ten times the "
            "file's size in memory; give a model folder instead"
        )
    return EngineUnavailableError(f"converting {gguf_file.name} failed ({reason}): give a model folder instead")


def main(arguments: list[str]) -> int:
    """The converting process. Returns its exit code."""
    source, folder = (Path(argument) for argument in arguments)
    try:
        _convert(source, folder)
    except ImportError as error:
        return _give_up(_RUNTIME_MISSING, error)
    except (OSError, MemoryError) as error:
        return _give_up(_CANNOT_WRITE, error)
    # Whatever else transformers raises says that it cannot make a model of this file.
    except Exception as error:  # noqa: BLE001
        full = "No space left" in str(error)
        return _give_up(_CANNOT_WRITE if full else _CANNOT_READ, error)
    return 0


def _give_up(code: int, error: BaseException) -> int:
    sys.stderr.write(f"\n{type(error).__name__}: {' '.join(str(error).split())}\n")
    return code


def _convert(source: Path, folder: Path) -> None:
    """Read with transformers' own GGUF reader and write safetensors, tokenizer and configuration."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    where = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    tokenizer = AutoTokenizer.from_pretrained(**where)
    config = AutoConfig.from_pretrained(**where)
    # from_pretrained(gguf_file=...) would do the next three lines, but refuses to without `accelerate`.
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    read = load_gguf_checkpoint(str(source), return_tensors=True, model_to_load=model, torch_dtype=torch.float32)
    loaded = model.load_state_dict(read["tensors"], strict=False, assign=True)
    model.tie_weights()
    _check_complete(model, loaded)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # safetensors writes for the owner alone; a cache may be shared, and its folder has the user's umask.
    for path in folder.iterdir():
        path.chmod(0o644)


def _check_complete(model: Any, loaded: Any) -> None:
    """A weight that the file did not give would be noise, silently."""
    missing = [name for name in loaded.missing_keys if model.get_parameter(name).is_meta]
    if missing or loaded.unexpected_keys:
        raise ValueError(f"weights do not match: missing {missing[:3]}, unexpected {loaded.unexpected_keys[:3]}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
