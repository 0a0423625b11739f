"""Calls of `blendrun.Engine` as lines of a job, and the lines of its output as answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from blendrun.errors import UsageError
from blendrun.python_names import refuse_arguments
from blendrun.store.folder import StateFolder

Answer = dict[str, Any]
GENERATE, CHAT, EMBEDDINGS, SCORE = "/generate", "/v1/chat/completions", "/v1/embeddings", "/v1/score"
# Of `sglang.Engine.generate`, what each request of a call may have one of its own of.
EACH = (
    "return_logprob",
    "logprob_start_len",
    "top_logprobs_num",
    "token_ids_logprob",
    "return_text_in_logprobs",
    "lora_path",
)
# Of `sglang.Engine.encode`, and of `score`.
ENCODED = ("dimensions", "lora_path")
SCORED = (
    *("label_token_ids", "apply_softmax", "item_first", "temperature"),
    *("return_token_logprobs", "return_pooled_hidden_states"),
)


@dataclass(frozen=True, slots=True)
class ScoreResult:
    """As SGLang's. scores: a row of labels for each item. pooled_hidden_states: lists of numbers, where asked for."""

    scores: list[Any]
    prompt_tokens: int = 0
    pooled_hidden_states: list[Any] | None = None
    token_logprobs: list[list[float]] | None = None


def requests_of(
    prompt: Any, sampling_params: Any, input_ids: Any, more: Mapping[str, Any]
) -> tuple[list[Answer], bool]:
    """The requests of a call, and whether it is one. Raises UsageError."""
    if (prompt is None) == (input_ids is None):
        raise UsageError("generate takes `prompt` or `input_ids`, one of them")
    refuse_arguments("generate", more, EACH)
    given, field = (prompt, "text") if input_ids is None else (input_ids, "input_ids")
    single = isinstance(given, str) or (field == "input_ids" and len(given) > 0 and not _is_list(given[0]))
    prompts = [given] if single else list(given)
    bodies = []
    for place, each in enumerate(prompts):
        body: Answer = {field: each if isinstance(each, str) else list(each)}
        body["sampling_params"] = dict(_of(sampling_params, place, len(prompts), "sampling_params") or {})
        for name in EACH:
            if (value := _of(more.get(name), place, len(prompts), name, whole=name == "token_ids_logprob")) is not None:
                body[name] = value
        bodies.append(body)
    return bodies, single


def encodings_of(prompt: Any, more: Mapping[str, Any]) -> tuple[list[Answer], bool]:
    """The requests of a call of `encode`, and whether it is one. Raises UsageError."""
    refuse_arguments("encode", more, ENCODED)
    single = isinstance(prompt, str) or (len(prompt) > 0 and isinstance(prompt[0], int))
    inputs = [prompt] if single else prompt
    bodies = []
    for place, each in enumerate(inputs):
        if isinstance(each, Mapping) or (_is_list(each) and any(isinstance(part, Mapping) for part in each)):
            raise UsageError(
                'encode takes texts or token ids; inputs with pictures are lines: Engine.stream([{"url": …}])'
            )
        body: Answer = {"input": each}
        for name in ENCODED:
            if (value := _of(more.get(name), place, len(inputs), name)) is not None:
                body[name] = value
        bodies.append(body)
    return bodies, single


def score_of(query: Any, items: Any, more: Mapping[str, Any]) -> Answer:
    """The request of a call of `score`. Raises UsageError."""
    refuse_arguments("score", more, SCORED)
    return {"query": query, "items": items} | {name: value for name, value in more.items() if name in SCORED}


def score_in(answer: Answer) -> ScoreResult:
    return ScoreResult(
        answer["scores"],
        answer["usage"]["prompt_tokens"],
        answer.get("pooled_hidden_states"),
        answer.get("token_logprobs"),
    )


def _of(value: Any, place: int, count: int, name: str, *, whole: bool = False) -> Any:
    """What one request of several has. whole: a list of numbers is one value. Raises UsageError."""
    if not _is_list(value) or (whole and not (value and _is_list(value[0]))):
        return value
    if len(value) != count:
        raise UsageError(f"{name}: {len(value)} for {count} prompts")
    return value[place]


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def line_of(request: str | Mapping[str, Any]) -> tuple[str, Answer]:
    """Url and body. Raises UsageError."""
    if isinstance(request, str):
        return GENERATE, {"text": request}
    if "body" in request:
        return str(request.get("url") or CHAT), dict(request["body"])
    if "messages" in request:
        return CHAT, dict(request)
    if "text" in request or "input_ids" in request:
        return GENERATE, dict(request)
    raise UsageError(f"a request has `text`, `input_ids`, `messages`, or `url` and `body`, not {list(request)}")


def answers_in(output: Path, count: int, refused: Mapping[int, Answer]) -> list[Answer]:
    """Of each request, from the files of a run that is done. refused: of those that were not in it."""
    found: list[Answer] = [refused.get(place, {}) for place in range(count)]
    for path in (output, StateFolder(output).errors):
        if path.exists():
            with path.open("rb") as file:
                for line in file:
                    place, answer = placed(line)
                    found[place] = answer
    return found


def placed(line: bytes) -> tuple[int, Answer]:
    """Place and answer of a line of a call's output, or its error."""
    content = orjson.loads(line)
    place = int(content["custom_id"])
    if content.get("error") is not None:
        return place, {"error": {name: content["error"][name] for name in ("code", "message")}}
    body: Answer = content["response"]["body"]
    return place, body
