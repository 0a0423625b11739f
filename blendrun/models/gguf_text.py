"""Tokenizer, chat template and configuration of a GGUF file, as the files that a plan reads: a second, no weights.

Byte-level BPE of Llama's architecture, which is what transformers makes the same of (`models.gguf` converts all others
whole). No engine loads such a folder.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from blendrun.models.gguf_header import GgufHeader, read_header

_CONTROL = 3
# The output's own weights; a file without them takes the embedding's.
_HEAD = "output.weight"
_TOKENIZER, _ARCHITECTURE = "gpt2", "llama"
_SPECIAL = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}


def text_files(gguf_file: Path, folder: Path) -> Path | None:
    """Make `folder` one with tokenizer.json, its configuration, config.json and the chat template, if it is not there.

    Returns it; None where the file's tokenizer is of another kind, where it cannot be read, or where the folder cannot
    be written: whoever asks has another way, which says what is wrong.
    """
    if (folder / "config.json").is_file():
        return folder
    staging = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    try:
        files = _files(read_header(gguf_file))
        if files is None:
            return None
        staging.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (staging / name).write_text(text, encoding="utf-8")
        staging.rename(folder)
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        # Another command may have been sooner.
        return folder if (folder / "config.json").is_file() else None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder


def _files(header: GgufHeader) -> dict[str, str] | None:
    head = header.values
    if head["general.architecture"] != _ARCHITECTURE or head["tokenizer.ggml.model"] != _TOKENIZER:
        return None
    if head.get("tokenizer.ggml.add_bos_token") or head.get("tokenizer.ggml.add_space_prefix"):
        return None
    tokens = head["tokenizer.ggml.tokens"]
    found = {
        "tokenizer.json": json.dumps(_tokenizer(head, tokens), ensure_ascii=False),
        "tokenizer_config.json": json.dumps(_named(head, tokens), ensure_ascii=False),
        "config.json": json.dumps(_config(head, tokens) | {"tie_word_embeddings": _HEAD not in header.tensors}),
    }
    template = head.get("tokenizer.chat_template")
    return found | ({"chat_template.jinja": template} if template else {})


def _tokenizer(head: dict[str, Any], tokens: list[str]) -> dict[str, Any]:
    """As transformers' converter of such files writes it."""
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    kinds = head["tokenizer.ggml.token_type"]
    byte_level = {"type": "ByteLevel", "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": number, "content": token} | plain
            for number, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
            if kind == _CONTROL
        ],
        "normalizer": None,
        "pre_tokenizer": byte_level | {"add_prefix_space": False},
        "post_processor": None,
        "decoder": byte_level | {"add_prefix_space": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": [merge.split(" ", 1) for merge in head["tokenizer.ggml.merges"]],
        },
    }


def _named(head: dict[str, Any], tokens: list[str]) -> dict[str, str]:
    found = {name: head.get(f"tokenizer.ggml.{key}_token_id") for key, name in _SPECIAL.items()}
    return {name: tokens[number] for name, number in found.items() if number is not None}


def _config(head: dict[str, Any], tokens: list[str]) -> dict[str, Any]:
    """What a model card is made of."""

    def own(name: str) -> Any:
        return head[f"{_ARCHITECTURE}.{name}"]

    heads, hidden = own("attention.head_count"), own("embedding_length")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": own("feed_forward_length"),
        "num_hidden_layers": own("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": head.get(f"{_ARCHITECTURE}.attention.head_count_kv", heads),
        "head_dim": head.get(f"{_ARCHITECTURE}.attention.key_length", hidden // heads),
        "max_position_embeddings": own("context_length"),
        "vocab_size": len(tokens),
    }
