"""A real model that is small: Llama's architecture, two layers, hidden 64, the demo's tokenizer, random weights.

It stands wherever what is answered does not matter: SGLang's runtime, scheduler, cache and processes are the same, and
a forward pass takes next to nothing. Its answers are noise and never end by themselves: give `max_tokens`.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from blendrun.models.resolve import resolve_model

_SEED = 20261128
_CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "attention_bias": False,
    "bos_token_id": 1,
    "dtype": "float32",
    "eos_token_id": 2,
    "head_dim": 16,
    "hidden_act": "silu",
    "hidden_size": 64,
    "initializer_range": 0.02,
    "intermediate_size": 128,
    "max_position_embeddings": 8192,
    "mlp_bias": False,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "pad_token_id": 2,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_theta": 100000.0, "rope_type": "default"},
    "tie_word_embeddings": False,
    "vocab_size": 49152,
}
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json")


def write_tiny_model(folder: Path, *, nan_token: int | None = None, labels: int = 0, **config: Any) -> Path:
    """Write the model to `folder`, the same each time, and return it.

    nan_token: a token whose embedding is no number, so that every logit behind it is none. labels: of a classification
    head in the place of the output head; 0 for a model that generates. config: other dimensions.
    """
    folder.mkdir(parents=True, exist_ok=True)
    dimensions = _CONFIG | config
    weights = _weights(dimensions)
    if labels:
        dimensions |= {"architectures": ["LlamaForSequenceClassification"]} | _labels(labels)
        weights["score.weight"] = 8 * weights.pop("lm_head.weight")[:labels]
    if nan_token is not None:
        weights["model.embed_tokens.weight"][nan_token] = np.nan
    return _write(folder, dimensions, weights)


def write_tiny_reward_model(folder: Path) -> Path:
    """Write another model: Qwen2's architecture as a reward model, with its head of two layers and one number."""
    folder.mkdir(parents=True, exist_ok=True)
    dimensions = _CONFIG | {"architectures": ["Qwen2ForRewardModel"], "model_type": "qwen2"}
    weights, hidden, draw = _weights(dimensions), dimensions["hidden_size"], np.random.default_rng(_SEED)
    del weights["lm_head.weight"]
    queries, keys = 64, 32
    for layer in range(dimensions["num_hidden_layers"]):
        for name, size in (("q", queries), ("k", keys), ("v", keys)):
            weights[f"model.layers.{layer}.self_attn.{name}_proj.bias"] = _drawn(draw, size)
    for place, rows in ((0, hidden), (2, 1)):
        weights[f"score.{place}.weight"] = _drawn(draw, rows, hidden)
        weights[f"score.{place}.bias"] = _drawn(draw, rows)
    return _write(folder, dimensions, weights)


def write_tiny_cross_encoder(folder: Path, labels: int = 1) -> Path:
    """Write another model: BERT's architecture with a head of one number, which reads two texts together; or of more.

    Its weights are random, too, and its tokenizer is the same, which knows no pairs: it puts one text behind the other.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = _BERT | _labels(labels)
    return _write(folder, config, _bert_weights(config))


def _drawn(draw: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    return draw.standard_normal(shape, dtype=np.float32) / np.float32(shape[-1] ** 0.5)


def _labels(count: int) -> dict[str, Any]:
    """A configuration's fields for so many of them."""
    names = [f"class-{number}" for number in range(count)]
    return {
        "num_labels": count,
        "id2label": {str(number): name for number, name in enumerate(names)},
        "label2id": {name: number for number, name in enumerate(names)},
    }


_BERT: dict[str, Any] = {
    "architectures": ["BertForSequenceClassification"],
    "model_type": "bert",
    "attention_probs_dropout_prob": 0.0,
    "dtype": "float32",
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "hidden_size": 64,
    "intermediate_size": 128,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "pad_token_id": 2,
    "position_embedding_type": "absolute",
    "type_vocab_size": 2,
    "vocab_size": 49152,
    **_labels(1),
}


def _write(folder: Path, config: dict[str, Any], weights: dict[str, NDArray[np.float32]]) -> Path:
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    source = resolve_model("smollm2-135m", platform="cpu").path
    for name in _TOKENIZER:
        if (source / name).exists():
            shutil.copy(source / name, folder / name)
    return folder


def _bert_weights(config: dict[str, Any]) -> dict[str, NDArray[np.float32]]:
    draw = np.random.default_rng(_SEED)
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    found: dict[str, NDArray[np.float32]] = {}

    def matrix(name: str, rows: int, columns: int) -> None:
        found[f"{name}.weight"] = draw.standard_normal((rows, columns), dtype=np.float32) / np.float32(columns**0.5)

    def linear(name: str, rows: int, columns: int) -> None:
        matrix(name, rows, columns)
        found[f"{name}.bias"] = np.zeros(rows, dtype=np.float32)

    def norm(name: str) -> None:
        found[f"{name}.weight"], found[f"{name}.bias"] = np.ones(hidden, np.float32), np.zeros(hidden, np.float32)

    for name, rows in (("word", config["vocab_size"]), ("position", 512), ("token_type", 2)):
        matrix(f"bert.embeddings.{name}_embeddings", rows, hidden)
    norm("bert.embeddings.LayerNorm")
    for number in range(config["num_hidden_layers"]):
        layer = f"bert.encoder.layer.{number}"
        for name in ("self.query", "self.key", "self.value", "output.dense"):
            linear(f"{layer}.attention.{name}", hidden, hidden)
        norm(f"{layer}.attention.output.LayerNorm")
        linear(f"{layer}.intermediate.dense", inner, hidden)
        linear(f"{layer}.output.dense", hidden, inner)
        norm(f"{layer}.output.LayerNorm")
    linear("bert.pooler.dense", hidden, hidden)
    linear("classifier", config["num_labels"], hidden)
    return found


def _weights(config: dict[str, Any]) -> dict[str, NDArray[np.float32]]:
    """Every tensor of the architecture under its name in a checkpoint; matrices as (out, in)."""
    draw = np.random.default_rng(_SEED)
    hidden, inner, size = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * size, config["num_key_value_heads"] * size

    def matrix(rows: int, columns: int) -> NDArray[np.float32]:
        return draw.standard_normal((rows, columns), dtype=np.float32) / np.float32(columns**0.5)

    def norm() -> NDArray[np.float32]:
        return np.ones(hidden, dtype=np.float32)

    found = {"model.embed_tokens.weight": matrix(config["vocab_size"], hidden)}
    for layer in range(config["num_hidden_layers"]):
        name = f"model.layers.{layer}"
        found |= {
            f"{name}.input_layernorm.weight": norm(),
            f"{name}.self_attn.q_proj.weight": matrix(queries, hidden),
            f"{name}.self_attn.k_proj.weight": matrix(keys, hidden),
            f"{name}.self_attn.v_proj.weight": matrix(keys, hidden),
            f"{name}.self_attn.o_proj.weight": matrix(hidden, queries),
            f"{name}.post_attention_layernorm.weight": norm(),
            f"{name}.mlp.gate_proj.weight": matrix(inner, hidden),
            f"{name}.mlp.up_proj.weight": matrix(inner, hidden),
            f"{name}.mlp.down_proj.weight": matrix(hidden, inner),
        }
    return found | {"model.norm.weight": norm(), "lm_head.weight": matrix(config["vocab_size"], hidden)}
