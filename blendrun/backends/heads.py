"""What a model does not answer of the lines that its engine takes, and what to ask in their place: by its head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blendrun.endpoints.pairs import Reads
from blendrun.models.kind import ModelKind
from blendrun.models.resolve import ResolvedModel
from blendrun.tokens.load import template_reranks

_PAIRS = "/v1/rerank, or two texts on /v1/score (`text_1` and `text_2`),"


def unanswered(model: ResolvedModel, arguments: Mapping[str, Any]) -> dict[Reads, str]:
    """Why, of each kind of line that a model does not answer. arguments: the engine's."""
    reranks = template_reranks(model.path, arguments.get("chat_template"))
    if model.kind is ModelKind.GENERATOR:
        return {Reads.ITEMS: _needs_labels(model.name)} | ({} if reranks else {Reads.PAIRS: _no_head(model.name)})
    if model.kind is not ModelKind.CLASSIFIER:
        return {}
    found = {}
    if reranks:
        found[Reads.PAIRS] = (
            f"the chat template of {model.name} is a reranker's, by which SGLang asks a model that generates, and this "
            f"one has a classification head: give it another one (--engine-arg chat_template=FILE)"
        )
    if model.labels > 1:
        found[Reads.PAIRS] = (
            f"the head of {model.name} has {model.labels:,} numbers, and how well two texts go together is one: "
            f"/v1/classify has the class of a text (write both into one `input`)"
        )
    elif model.bidirectional:
        why = f"{model.name} is a cross-encoder: its head has one number, of two texts together"
        found |= dict.fromkeys((Reads.CLASSES, Reads.ITEMS, Reads.LABELLED), f"{why}; {_PAIRS} ask for it")
    else:
        found[Reads.CLASSES] = (
            f"the head of {model.name} has one number, such as a reward, and no classes: /v1/score with the texts as "
            f"`items` has it"
        )
    return found


def _no_head(name: str) -> str:
    return (
        f"pairs of texts are scored by a model with a classification head, or by a reranker's chat template "
        f"(--engine-arg chat_template=FILE), and {name} has neither; `query`, `items` and `label_token_ids` on "
        "/v1/score go with any model that generates"
    )


def _needs_labels(name: str) -> str:
    return (
        f"{name} generates, so a score is how likely tokens are behind each item: name them with `label_token_ids`; "
        "without them a model with a classification head scores"
    )
