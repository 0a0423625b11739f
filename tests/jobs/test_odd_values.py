"""Something of another kind in every place of a rich body of each url: refused in words, or a request; nothing else."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from blendrun.endpoints.rules import Rules
from blendrun.errors import LineError
from blendrun.jobs.line import parse_line
from tests.good_bodies import BODIES_OF_ALL_URLS

ODD: tuple[Any, ...] = (
    *(None, True, 0, -1, 1.5, 2**63, "", "x", " "),
    *([], [[]], [{}], [5], ["x"], [["x"]], [[1], ["x"]]),
    *({}, {"type": 5}, {"type": ["x"]}, {"type": "x"}, {"a": {}}),
)
_TOOL = {"type": "object", "properties": {"a": {"type": "string"}}}
_PNG = "data:image/png;base64,iVBORw0KGgo="
_SHAPED = {"type": "json_schema", "json_schema": {"name": "n", "schema": _TOOL}}
RICH: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "messages": [
            {"role": "system", "content": "s"},
            {
                "role": "user",
                "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": _PNG}}],
            },
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "c", "content": "5"},
            {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}]},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": _TOOL}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "response_format": _SHAPED,
        "stop": ["x"],
        "logit_bias": {"5": 1},
        "chat_template_kwargs": {"a": 1},
        "stream_options": {"include_usage": True},
        "reasoning": {"effort": "low"},
        "n": 2,
        "max_tokens": 5,
        "top_p": 0.5,
        "logprobs": True,
        "top_logprobs": 2,
        "seed": 1,
        "custom_params": {"thinking_budget": 5},
        "stop_token_ids": [1],
    },
    "/v1/completions": {
        "prompt": ["a", "b"],
        "max_tokens": 5,
        "logprobs": 1,
        "structured_outputs": {"json": _TOOL},
        "logit_bias": {"5": 1},
    },
    "/v1/embeddings": {"input": ["a", "b"], "encoding_format": "float", "dimensions": 5, "model": "m", "user": "u"},
    "/v1/classify": {"input": [[1], [2]], "model": "m"},
    "/v1/score": {
        "query": "q",
        "items": ["a", "b"],
        "label_token_ids": [[1, 2], [3]],
        "apply_softmax": True,
        "temperature": 0.5,
        "item_first": False,
    },
    "/v1/rerank": {
        "query": "q",
        "documents": ["a", {"text": "b"}],
        "top_n": 1,
        "instruct": "i",
        "return_documents": True,
    },
    "/generate": {"text": "a", "sampling_params": {"max_new_tokens": 5, "stop": ["x"], "n": 2}, "return_logprob": True},
    "/v1/responses": {
        "input": [
            {
                "role": "user",
                "content": [{"type": "input_text", "text": "a"}, {"type": "input_image", "image_url": _PNG}],
            },
            {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "t"}], "summary": []},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "a"}]},
        ],
        "instructions": "i",
        "tools": [{"type": "function", "name": "f", "parameters": _TOOL}],
        "tool_choice": {"type": "function", "name": "f"},
        "text": {"format": {"type": "json_schema", "name": "n", "schema": _TOOL}, "verbosity": "medium"},
        "reasoning": {"effort": "low", "summary": "auto"},
        "include": ["message.output_text.logprobs"],
        "top_logprobs": 2,
        "max_output_tokens": 5,
        "metadata": {"a": "b"},
    },
    "/v1/messages": {
        "max_tokens": 5,
        "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "a"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}},
                    {
                        "type": "document",
                        "title": "t",
                        "citations": {"enabled": False},
                        "source": {"type": "text", "data": "x"},
                    },
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "t", "signature": ""},
                    {"type": "tool_use", "id": "c", "name": "f", "input": {"a": "b"}},
                ],
            },
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "c", "content": [{"type": "text", "text": "5"}]}],
            },
        ],
        "tools": [{"name": "f", "input_schema": _TOOL}],
        "tool_choice": {"type": "tool", "name": "f"},
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "stop_sequences": ["x"],
        "metadata": {"user_id": "u"},
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": _TOOL}},
    },
}
OTHER_WORDS: dict[str, list[dict[str, Any]]] = {
    "/v1/score": [
        {"text_1": "a", "text_2": ["b", "c"]},
        {"queries": ["a"], "documents": ["b"]},
        {"data_1": "a", "data_2": "b"},
    ],
    "/v1/embeddings": [{"input": [1, 2]}],
    "/v1/completions": [{"prompt": [[1], [2]]}],
}
RULES = Rules(media_urls=True)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place inside a body, objects and lists included."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, each in inside:
        yield (*path, name)
        yield from places(each, (*path, name))


def changed(body: dict[str, Any], path: tuple[Any, ...], odd: Any) -> dict[str, Any]:
    made: Any = copy.deepcopy(body)
    holder = made
    for name in path[:-1]:
        holder = holder[name]
    holder[path[-1]] = odd
    return dict(made)


@pytest.mark.parametrize("url", RICH)
def test_an_odd_value_anywhere_is_a_refusal_in_words_or_a_request(url: str) -> None:
    for body in (RICH[url], *OTHER_WORDS.get(url, ())):
        for path in places(body):
            for odd in ODD:
                line = {"custom_id": "a", "url": url, "body": changed(body, path, odd)}
                try:
                    request = parse_line(orjson.dumps(line), rules=RULES)
                except LineError as refusal:
                    assert refusal.message and "Error" not in refusal.message, (path, odd)
                    continue
                except Exception as error:  # noqa: BLE001  # of any kind
                    pytest.fail(f"{url} {path} = {odd!r}: {type(error).__name__}: {error}")
                request.endpoint.prompts(request.body)
                request.endpoint.prompt_characters(request.body)
                assert request.endpoint.answers_to(request.body) >= 1, (path, odd)


@pytest.mark.parametrize("url", RICH)
def test_the_rich_bodies_are_requests(url: str) -> None:
    for body in (RICH[url], *OTHER_WORDS.get(url, ())):
        parse_line(orjson.dumps({"custom_id": "a", "url": url, "body": body}), rules=RULES)


def test_every_url_has_one() -> None:
    assert RICH.keys() == BODIES_OF_ALL_URLS.keys()
