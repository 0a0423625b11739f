"""What an answer's line says, as cells of a table's row."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
import orjson

from blendrun.endpoints.apis.registry import APIS
from blendrun.endpoints.registry import ENDPOINTS

_GENERATE = ENDPOINTS["/generate"]


class Of(StrEnum):
    """What the cells of a column hold: TEXTS and PARSED a list where lines have several answers, LABELS, PROBS and
    VECTOR one where they have several inputs.
    """

    TEXT = "text"
    TEXTS = "texts"
    PARSED = "parsed"
    LABELS = "labels"
    PROBS = "probs"
    VECTOR = "vector"
    NUMBERS = "numbers"
    PLACES = "places"
    TOKENS = "tokens"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Shape:
    """What is alike in all answers of a run, as far as it is known.

    several: answers of a line, so that texts are lists. inputs: of a line that reads several, so that a vector, a label
    and its probabilities are lists. size: numbers of each vector; None where they are unlike.
    """

    several: bool = False
    inputs: bool = False
    size: int | None = None


class UnlikeError(Exception):
    """An answer that does not fit the shape. shape: one that it fits."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.shape = shape


@dataclass(frozen=True, slots=True)
class Column:
    """One that is made of answers. read: of a response's body, and the shape; raises LookupError, TypeError, ValueError
    for a body that has it not.
    """

    name: str
    of: Of
    read: Callable[[dict[str, Any], Shape], Any]


def is_generate(body: dict[str, Any]) -> bool:
    """Whether a response's body is SGLang's own, of one answer or of several."""
    return "meta_info" in body or "outputs" in body


def _texts(body: dict[str, Any], shape: Shape) -> Any:
    for api in APIS.values():
        if (facts := api.facts(body)) is not None:
            return _one([facts.text], shape)
    if is_generate(body):
        return _one([each.get("text") for each in _GENERATE.answers(body)], shape)
    return _one([_text(choice) for choice in body["choices"]], shape)


def _text(choice: dict[str, Any]) -> Any:
    return choice["text"] if "text" in choice else choice["message"].get("content")


def _reasoning(body: dict[str, Any], shape: Shape) -> Any:
    found = [choice["message"].get("reasoning_content") for choice in body["choices"]]
    return _one(found, shape) if any(found) else None


def _calls(body: dict[str, Any], shape: Shape) -> Any:
    found = [choice["message"].get("tool_calls") for choice in body["choices"]]
    return _one(found, shape) if any(found) else None


def _parsed(body: dict[str, Any], shape: Shape) -> Any:
    texts = _texts(body, Shape(several=True))
    return _one([_json(text) for text in texts], shape)


def _json(text: Any) -> Any:
    try:
        return orjson.loads(text)
    except (orjson.JSONDecodeError, TypeError):
        return None


def _finish(body: dict[str, Any], shape: Shape) -> Any:
    for api in APIS.values():
        if (facts := api.facts(body)) is not None:
            return _one([facts.finish], shape)
    if is_generate(body):
        return _one([reason or None for reason in _GENERATE.finish_reasons(body)], shape)
    return _one([choice.get("finish_reason") for choice in body["choices"]], shape)


def _one(values: list[Any], shape: Shape) -> Any:
    return values if shape.several else values[0]


def _usage(field: str) -> Callable[[dict[str, Any], Shape], Any]:
    def read(body: dict[str, Any], _: Shape) -> Any:
        for api in APIS.values():
            if (facts := api.facts(body)) is not None:
                return {"prompt_tokens": facts.prompt, "completion_tokens": facts.output}.get(field, facts.cached)
        if is_generate(body):
            told = _GENERATE.usage(body)
            return {"prompt_tokens": told.prompt, "completion_tokens": told.output}.get(field, told.cached)
        usage = body["usage"]
        if field == "cached_tokens":
            return (usage.get("prompt_tokens_details") or {}).get(field)
        return usage.get(field)

    return read


def _each_input(field: str) -> Callable[[dict[str, Any], Shape], Any]:
    def read(body: dict[str, Any], shape: Shape) -> Any:
        found = [each[field] for each in body["data"]]
        if len(found) > 1 and not shape.inputs:
            raise UnlikeError(replace(shape, inputs=True))
        return found if shape.inputs else found[0]

    return read


def _vectors(body: dict[str, Any], shape: Shape) -> Any:
    """One vector, or a list of them. Raises UnlikeError."""
    found = [vector(each["embedding"]) for each in body["data"]]
    inputs = shape.inputs or len(found) > 1
    size = shape.size if all(len(each) == shape.size for each in found) else None
    if (inputs, size) != (shape.inputs, shape.size):
        raise UnlikeError(replace(shape, inputs=inputs, size=size))
    return found if inputs else found[0]


def vector(given: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The numbers of an embedding, f32 (size,). Raises ValueError, TypeError."""
    if not isinstance(given, str):
        try:
            with np.errstate(over="raise"):
                numbers = np.asarray(given, np.float32)
        except FloatingPointError as error:
            raise ValueError("a number has more than 32 bits") from error
        if numbers.ndim != 1:
            raise ValueError("it is no list of numbers")
        return numbers
    try:
        return np.frombuffer(base64.b64decode(given, validate=True), "<f4")
    except binascii.Error as error:
        raise ValueError(str(error)) from error


def _scores(body: dict[str, Any], _: Shape) -> Any:
    return [each["score"] for each in body["data"]] if "data" in body else None


def _label_scores(body: dict[str, Any], _: Shape) -> Any:
    """SGLang's form: a row of labels for each item."""
    return body.get("scores")


def _ranking(field: str) -> Callable[[dict[str, Any], Shape], Any]:
    return lambda body, _: [each[field] for each in body["results"]]


RESPONSE = Column("response", Of.TEXTS, _texts)
REASONING = Column("reasoning", Of.TEXTS, _reasoning)
CALLS = Column("tool_calls", Of.JSON, _calls)
PARSED = Column("parsed", Of.PARSED, _parsed)
FINISH = Column("finish_reason", Of.TEXTS, _finish)
OUTPUT_TOKENS = Column("completion_tokens", Of.TOKENS, _usage("completion_tokens"))
EMBEDDING = Column("embedding", Of.VECTOR, _vectors)
LABELS = (Column("label", Of.LABELS, _each_input("label")), Column("probs", Of.PROBS, _each_input("probs")))
SCORES = (Column("scores", Of.NUMBERS, _scores), Column("label_scores", Of.JSON, _label_scores))
RANKING = (
    Column("ranking", Of.PLACES, _ranking("index")),
    Column("relevance_scores", Of.NUMBERS, _ranking("relevance_score")),
)
INPUT_TOKENS = (
    Column("prompt_tokens", Of.TOKENS, _usage("prompt_tokens")),
    Column("cached_tokens", Of.TOKENS, _usage("cached_tokens")),
)
