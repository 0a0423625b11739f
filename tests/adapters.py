"""LoRA adapters of random numbers for the tiny model, as peft writes them, and a model with one merged into it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_NAME = "base_model.model."
_ALPHA = 2


def write_adapter(folder: Path, model: Path, *, seed: int, rank: int, targets: tuple[str, ...] = LINEAR) -> Path:
    """Write an adapter of all layers' `targets` to `folder`, and return it."""
    draw = np.random.default_rng(seed)
    weights: dict[str, NDArray[np.float32]] = {}
    for name, weight in sorted(load_file(model / "model.safetensors").items()):
        if not name.removesuffix(".weight").endswith(targets):
            continue
        rows, columns = weight.shape
        module = _NAME + name.removesuffix(".weight")
        for part, shape, scale in (("A", (rank, columns), columns), ("B", (rows, rank), rank)):
            weights[f"{module}.lora_{part}.weight"] = draw.standard_normal(shape, np.float32) / np.float32(scale**0.5)
    folder.mkdir(parents=True)
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(model),
        "r": rank,
        "lora_alpha": _ALPHA * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": list(targets),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def write_merged(folder: Path, model: Path, adapter: Path) -> Path:
    """Write the model with W + alpha / r * B A in the place of each W that the adapter is for; return its folder."""
    shutil.copytree(model, folder)
    weights, added = load_file(model / "model.safetensors"), load_file(adapter / "adapter_model.safetensors")
    for name, down in added.items():
        if ".lora_A." in name:
            up = added[name.replace(".lora_A.", ".lora_B.")]
            weights[name.removeprefix(_NAME).replace(".lora_A.weight", ".weight")] += np.float32(_ALPHA) * (up @ down)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
