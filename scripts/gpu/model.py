"""A model folder without weights, for engines with load_format=dummy: python scripts/gpu/model.py FOLDER [--small]

Dummy weights say nothing about answers and everything about time. Llama-3-8B's public dimensions, or small ones. The
tokenizer is SmolLM2's: prompts are token ids below 40,000, so any will do.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from blendrun.models.resolve import resolve_model

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": 4096,
    "intermediate_size": 14336, "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
    "head_dim": 128, "max_position_embeddings": 8192, "rms_norm_eps": 1e-05, "rope_theta": 500000.0,
    "vocab_size": 128256, "tie_word_embeddings": False, "torch_dtype": "bfloat16", "attention_bias": False,
    "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.02, "use_cache": True,
}  # fmt: skip
SMALL = {
    "hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4, "num_hidden_layers": 2,
    "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 49152, "tie_word_embeddings": True,
}  # fmt: skip


def write_model(folder: Path, small: bool = False, tokenizer: Path | None = None) -> Path:
    """Returns `folder`, which has config.json and a tokenizer then. tokenizer: a folder that has one."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(LLAMA | (SMALL if small else {}), indent=1))
    source = tokenizer or resolve_model("smollm2-135m", platform="cpu").path
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"):
        if (source / name).exists():
            shutil.copy(source / name, folder / name)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--small", action="store_true")
    asked = parser.parse_args()
    write_model(asked.folder, asked.small)


if __name__ == "__main__":
    main()
