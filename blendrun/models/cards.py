"""Cards from files: our own YAML, read strictly, and a model's config.json as transformers writes it."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import types
import typing
from pathlib import Path
from typing import Any

import msgspec
import yaml

from blendrun.errors import UsageError
from blendrun.models.card import Mla, ModelCard, ModelSource, Moe, Parsers, SlidingWindow
from blendrun.models.configs_folder import configs_folder

__all__ = [
    "Mla",
    "ModelCard",
    "ModelSource",
    "Moe",
    "Parsers",
    "SlidingWindow",
    "card_from_config",
    "list_aliases",
    "load_card",
    "near_aliases",
    "read_card",
    "read_config",
]

# Plain decoders with a gated MLP in every layer, the shape that ModelCard counts. Hybrids with state-space or
# linear-attention layers are not: their cache does not grow by token. Of a model that sees, what reads the prompt; what
# its pictures cost before they are tokens is left out.
COUNTED_ARCHITECTURES = frozenset(
    {
        "DeepseekV2ForCausalLM",
        "DeepseekV3ForCausalLM",
        "Gemma2ForCausalLM",
        "Gemma3ForCausalLM",
        "Gemma3ForConditionalGeneration",
        "GptOssForCausalLM",
        "LlamaForCausalLM",
        "MistralForCausalLM",
        "MixtralForCausalLM",
        "Olmo2ForCausalLM",
        "Phi3ForCausalLM",
        "Qwen2ForCausalLM",
        "Qwen2MoeForCausalLM",
        "Qwen2VLForConditionalGeneration",
        "Qwen2_5_VLForConditionalGeneration",
        "Qwen3ForCausalLM",
        "Qwen3MoeForCausalLM",
        "Qwen3VLForConditionalGeneration",
    }
)
_TIED_BY_DEFAULT = ("Gemma",)
# The same layers without an output head, or with one of a few rows: no more than a norm.
_HEADLESS = {
    "LlamaEmbeddingModel": "LlamaForCausalLM",
    "LlamaForSequenceClassification": "LlamaForCausalLM",
    "LlamaForSequenceClassificationWithNormal_Weights": "LlamaForCausalLM",
    "MistralModel": "MistralForCausalLM",
    "Qwen2ForRewardModel": "Qwen2ForCausalLM",
    "Qwen2ForSequenceClassification": "Qwen2ForCausalLM",
    "Qwen3ForRewardModel": "Qwen3ForCausalLM",
    "Qwen3ForSequenceClassification": "Qwen3ForCausalLM",
    "Qwen3Model": "Qwen3ForCausalLM",
}


def list_aliases() -> list[str]:
    """Every alias that `load_card` takes, sorted."""
    return sorted(path.stem for path in configs_folder("models").glob("*.yaml"))


def load_card(alias: str) -> ModelCard:
    """The card of an alias, which is the name of its file in configs/models without `.yaml`.

    Raises UsageError for an unknown alias (naming close ones) and for a card with a wrong key or value.
    """
    path = configs_folder("models") / f"{alias}.yaml"
    if alias not in list_aliases():
        raise UsageError(f"no model is called {alias!r}; {near_aliases(alias)}")
    return read_card(path)


def near_aliases(name: str) -> str:
    """What the user may have meant by `name`: the close aliases, then all of them."""
    aliases = list_aliases()
    close = difflib.get_close_matches(name.lower(), aliases, n=3, cutoff=0.6)
    meant = f"did you mean {' or '.join(close)}? " if close else ""
    return f"{meant}known aliases: {', '.join(aliases)} (`blendrun models` says more)"


@functools.cache
def read_card(path: Path) -> ModelCard:
    """A card from a YAML file. Raises UsageError that names the file and the key."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: cannot be read as YAML ({error})") from error
    if not isinstance(data, dict):
        raise UsageError(f"{path}: must be a table of keys")
    if data.setdefault("alias", path.stem) != path.stem:
        raise UsageError(f"{path}: key `alias` must be the file's name, {path.stem!r}")
    _refuse_unknown_keys(ModelCard, data, path, "")
    try:
        return msgspec.convert(data, ModelCard)
    except msgspec.ValidationError as error:
        raise UsageError(f"{path}: {error}") from error


def _refuse_unknown_keys(cls: type, data: dict[Any, Any], path: Path, prefix: str) -> None:
    hints = typing.get_type_hints(cls)
    for key, value in data.items():
        if key not in hints:
            raise UsageError(f"{path}: unknown key `{prefix}{key}`; known here: {', '.join(hints)}")
        block = _block_class(hints[key])
        if block is not None and isinstance(value, dict):
            _refuse_unknown_keys(block, value, path, f"{prefix}{key}.")


def _block_class(hint: Any) -> type | None:
    """The dataclass in a `Block | None` annotation."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return next((option for option in options if dataclasses.is_dataclass(option)), None)  # type: ignore[return-value]


def card_from_config(config: dict[str, Any] | Path, name: str) -> ModelCard:
    """A card from a model's config.json (its content, or its path), for models that have no card of ours.

    Raises UsageError for an architecture that ModelCard does not describe and for a missing dimension.
    """
    where = str(config) if isinstance(config, Path) else f"config of {name}"
    outer = read_config(config) if isinstance(config, Path) else config
    architecture = next(iter(outer.get("architectures") or ["none"]))
    if _HEADLESS.get(architecture, architecture) not in COUNTED_ARCHITECTURES:
        raise UsageError(
            f"{where}: architecture {architecture} has no cost model; use one that has: see configs/models"
        )
    text = {**outer, **(outer.get("text_config") or {})}
    try:
        return _card(text, architecture, name)
    except KeyError as error:
        raise UsageError(f"{where}: key {error} is missing") from error


def read_config(path: Path) -> dict[str, Any]:
    """The content of a config.json. Raises UsageError where it is not one JSON object."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(config, dict):
        raise UsageError(f"{path}: must be a JSON object")
    return config


def _card(text: dict[str, Any], architecture: str, name: str) -> ModelCard:
    heads: int = text["num_attention_heads"]
    tied = True if architecture in _HEADLESS else text.get("tie_word_embeddings")
    return ModelCard(
        alias=name,
        title=name,
        license="unknown",
        source=None,
        architecture=architecture,
        context_length=text["max_position_embeddings"],
        layers=text["num_hidden_layers"],
        hidden_size=text["hidden_size"],
        intermediate_size=text["intermediate_size"],
        heads=heads,
        kv_heads=text.get("num_key_value_heads") or heads,
        head_dim=text.get("head_dim") or text["hidden_size"] // heads,
        vocab_size=text["vocab_size"],
        tied_embeddings=architecture.startswith(_TIED_BY_DEFAULT) if tied is None else tied,
        published_parameters=None,
        moe=_moe(text),
        mla=_mla(text),
        sliding_window=_sliding_window(text),
        quantization=_quantization(text),
    )


def _quantization(text: dict[str, Any]) -> str | None:
    found = text.get("quantization_config") or {}
    parts = [str(found[key]) for key in ("quant_method", "format", "bits") if found.get(key)]
    return " ".join(parts) or None


def _moe(text: dict[str, Any]) -> Moe | None:
    experts = next((text[key] for key in ("n_routed_experts", "num_local_experts", "num_experts") if text.get(key)), 0)
    if not experts:
        return None
    width: int = text.get("moe_intermediate_size") or text["intermediate_size"]
    shared = (text.get("n_shared_experts") or 0) * width
    return Moe(
        experts=experts,
        experts_per_token=text["num_experts_per_tok"],
        expert_intermediate_size=width,
        shared_intermediate_size=text.get("shared_expert_intermediate_size") or shared,
        dense_layers=text.get("first_k_dense_replace") or len(text.get("mlp_only_layers") or ()),
    )


def _mla(text: dict[str, Any]) -> Mla | None:
    if not text.get("kv_lora_rank"):
        return None
    return Mla(
        kv_lora_rank=text["kv_lora_rank"],
        q_lora_rank=text.get("q_lora_rank"),
        qk_rope_head_dim=text["qk_rope_head_dim"],
        qk_nope_head_dim=text["qk_nope_head_dim"],
        v_head_dim=text["v_head_dim"],
    )


def _sliding_window(text: dict[str, Any]) -> SlidingWindow | None:
    """Mistral slides in every layer, Qwen only where `use_sliding_window` says so, others by pattern."""
    window = text.get("sliding_window")
    if not window or text.get("use_sliding_window") is False:
        return None
    kinds = text.get("layer_types")
    if kinds:
        full = [place for place, kind in enumerate(kinds) if kind == "full_attention"]
        return SlidingWindow(window, full[0] + 1 if full else 0) if len(full) < len(kinds) else None
    by_architecture = {"gemma3_text": 6, "gemma2": 2, "gpt_oss": 2}.get(text.get("model_type", ""), 0)
    return SlidingWindow(window, text.get("sliding_window_pattern") or by_architecture)
