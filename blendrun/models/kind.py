"""What a model's last layer makes: the next token, a vector, or what a head says; by its architecture.

SGLang 0.5.23, configs/model_config.py (`is_generation_model`) and layers/pooler.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

_EMBEDDERS = frozenset(
    (
        *("BertModel", "CLIPModel", "Contriever", "EmbeddingGemma2Model", "Lfm2BidirectionalModel"),
        *("LlamaEmbeddingModel", "MistralModel", "Qwen3Model", "XLMRobertaModel"),
    )
)
_HEADS = (
    "ForSequenceClassification",
    "LlamaForClassification",
    "ForSequenceClassificationWithNormal_Weights",
    "ForRewardModel",
)
# One number, whatever labels the configuration has.
_REWARDS = ("ForRewardModel", "ForSequenceClassificationWithNormal_Weights")
# transformers' own, where a configuration names none.
_USUAL_LABELS = 2
# Every token sees those behind it, too: what was computed of a prefix is of no use to another prompt.
_BIDIRECTIONAL = ("Bert", "XLMRoberta", "Contriever", "EmbeddingGemma", "Lfm2Bidirectional")


class ModelKind(StrEnum):
    """generator: the next token, or a vector of the last one where it is asked for those. embedder: a vector alone.
    classifier: numbers of a classification or reward head alone.
    """

    GENERATOR = "generator"
    EMBEDDER = "embedder"
    CLASSIFIER = "classifier"


def kind_of(config: Mapping[str, Any]) -> ModelKind:
    """config: the content of a config.json. What names no architecture generates."""
    names = _architectures(config)
    if any(name.endswith(_HEADS) for name in names):
        return ModelKind.CLASSIFIER
    if _EMBEDDERS.intersection(names) or _is_embedding_gemma(config):
        return ModelKind.EMBEDDER
    return ModelKind.GENERATOR


def is_bidirectional(config: Mapping[str, Any]) -> bool:
    """Whether tokens see those behind them, so that prompts share nothing and are read whole."""
    return any(name.startswith(_BIDIRECTIONAL) for name in _architectures(config)) or _is_embedding_gemma(config)


def labels_of(config: Mapping[str, Any]) -> int:
    """How many numbers a classification or reward head gives; 0 without one."""
    names = _architectures(config)
    if kind_of(config) is not ModelKind.CLASSIFIER:
        return 0
    if any(name.endswith(_REWARDS) for name in names):
        return 1
    if "LlamaForClassification" in names:
        return _count(config.get("classification_out_size")) or _USUAL_LABELS
    labels = config.get("id2label")
    return (len(labels) if isinstance(labels, dict) else 0) or _count(config.get("num_labels")) or _USUAL_LABELS


def _count(value: object) -> int:
    return value if type(value) is int and value > 0 else 0


def _is_embedding_gemma(config: Mapping[str, Any]) -> bool:
    return "Gemma3TextModel" in _architectures(config) and bool(config.get("use_bidirectional_attention"))


def _architectures(config: Mapping[str, Any]) -> tuple[str, ...]:
    names = config.get("architectures")
    return tuple(name for name in names if isinstance(name, str)) if isinstance(names, list) else ()
