"""Other ways to write the same request: they mean what the usual way means."""

from __future__ import annotations

import json
from typing import Any

import pytest

from blendrun.endpoints.base import AnswerDemand
from blendrun.endpoints.registry import ENDPOINTS
from blendrun.endpoints.rules import Rules
from blendrun.endpoints.spellings import one_spelling, url_of
from blendrun.errors import ErrorCode, LineError
from blendrun.jobs.line import parse_line

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
MESSAGES = [{"role": "user", "content": "Hi"}]


def read(body: dict[str, Any], url: str = COMPLETIONS, rules: Rules | None = None) -> dict[str, Any]:
    """The body that an engine is given."""
    raw = json.dumps({"custom_id": "a", "url": url, "body": body}).encode()
    return parse_line(raw, rules=rules or Rules()).body


def refusal(body: dict[str, Any], url: str = COMPLETIONS) -> LineError:
    with pytest.raises(LineError) as caught:
        read(body, url)
    return caught.value


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ({"max_tokens": 8.0}, {"max_tokens": 8}),
        ({"n": 1.0, "seed": 7.0, "top_k": 5.0, "min_tokens": 0.0}, {"n": 1, "seed": 7, "top_k": 5, "min_tokens": 0}),
        ({"logprobs": 2.0, "stop_token_ids": [1.0, 2]}, {"logprobs": 2, "stop_token_ids": [1, 2]}),
        ({"temperature": 1.0}, {"temperature": 1.0}),
        ({"stop": ""}, {}),
        ({"stop": [""]}, {}),
        ({"stop": []}, {}),
        ({"stop": ["###", "", "\n"]}, {"stop": ["###", "\n"]}),
        ({"stop": "###"}, {"stop": "###"}),
        ({"stream": True, "stream_options": {"include_usage": True}}, {}),
        ({"logprobs": True}, {"logprobs": 1}),
        ({"max_completion_tokens": 5}, {"max_tokens": 5}),
        ({"top_k": 0}, {"top_k": -1}),
        ({"include_stop_str_in_output": True}, {"no_stop_trim": True}),
        ({"best_of": 2, "n": 2}, {"n": 2}),
    ],
)
def test_numbers_stops_and_streams(written: dict[str, Any], meant: dict[str, Any]) -> None:
    assert read({"prompt": "x", **written}) == {"prompt": "x", **meant}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (["text"], "text"),
        ([[5, 6]], [5, 6]),
        ([[5.0, 6.0]], [5, 6]),
        ([5.0, 6], [5, 6]),
        (["a", "b"], ["a", "b"]),
        ([[1], [2.0, 3]], [[1], [2, 3]]),
    ],
)
def test_a_list_of_one_prompt_is_that_prompt_and_several_are_several(written: object, meant: object) -> None:
    assert read({"prompt": written}) == {"prompt": meant}


@pytest.mark.parametrize("written", [[["a", "b"]], [["a"], ["b"]], [[["a"]]], [[[5, 6]]], [[]], []])
def test_a_list_of_lists_of_texts_is_no_prompt(written: object) -> None:
    assert "must be a string, a list of token ids" in refusal({"prompt": written}).message


def test_a_line_of_several_prompts_is_as_many_answers() -> None:
    body = read({"prompt": ["a", "longer", "b"], "n": 2, "max_tokens": 3})
    endpoint = ENDPOINTS[COMPLETIONS]
    assert endpoint.demand(body) == AnswerDemand(6, 3)
    assert endpoint.plain_prompt(body) == "longer", "what the context must hold"
    assert endpoint.prompt_characters(body) == 8
    assert "for each of 400 prompts" in refusal({"prompt": ["a"] * 400, "n": 100}).message


@pytest.mark.parametrize("value", [8.5, 1e30, True, "8", [8]])
def test_what_is_no_whole_number_stays_an_error(value: object) -> None:
    assert refusal({"prompt": "x", "max_tokens": value}).code is ErrorCode.INVALID_REQUEST


@pytest.mark.parametrize("arguments", ["", "  \n", None, "{}"])
def test_a_call_without_arguments_has_an_object_without_fields(arguments: object) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "now", "arguments": arguments}}
    messages = [*MESSAGES, {"role": "assistant", "content": None, "tool_calls": [call]}]
    body = read({"messages": messages}, CHAT)
    assert body["messages"][1]["tool_calls"][0]["function"]["arguments"] == "{}"
    assert call["function"]["arguments"] == arguments, "the line itself stays as it is"  # type: ignore[index]


@pytest.mark.parametrize("arguments", ["{", "[1]", "5", 5])
def test_arguments_that_are_no_object_are_named(arguments: object) -> None:
    calls = [{"function": {"name": "now", "arguments": arguments}}]
    error = refusal({"messages": [*MESSAGES, {"role": "assistant", "tool_calls": calls}]}, CHAT)
    assert error.message.startswith("`messages[1].tool_calls[0].function.arguments`: it must be the JSON text of an")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("/chat/completions", CHAT),
        ("chat/completions", CHAT),
        ("/completions", COMPLETIONS),
        ("v1/completions", COMPLETIONS),
        ("/v1/chat/completions/", CHAT),
        ("/openai/deployments/my-gpt/chat/completions", CHAT),
        ("/openai/deployments/x/completions?api-version=2024-06-01", COMPLETIONS),
        ("https://api.openai.com/v1/chat/completions", CHAT),
        ("https://me.openai.azure.com/openai/deployments/x/chat/completions?api-version=1", CHAT),
        ("http://localhost:8000/v1/completions", COMPLETIONS),
        ("/v1/embeddings", "/v1/embeddings"),
        ("/v2/chat/completions", "/v2/chat/completions"),
        ("https://example.org/", "https://example.org/"),
        ("/openai/v1/chat/completions", CHAT),
        ("https://gateway.example.org/api/v1/chat/completions", CHAT),
        ("https://gateway.example.org/openai/v1/completions?x=1", COMPLETIONS),
        (" /v1/chat/completions", CHAT),
        ("https://example.org/api/v2/chat/completions", "https://example.org/api/v2/chat/completions"),
        ("/api/v1/chat/completions", "/api/v1/chat/completions"),
        ("", ""),
    ],
)
def test_urls_of_azure_and_whole_addresses(given: str, meant: str) -> None:
    assert url_of(given) == meant
    assert url_of(meant) == meant


def test_the_digest_is_that_of_the_line_as_it_is_written() -> None:
    def content(**fields: Any) -> bytes:
        line = {"custom_id": "a", "url": CHAT, "body": {"messages": MESSAGES, **fields}}
        return parse_line(json.dumps(line).encode()).content

    assert content(max_tokens=8) != content(max_tokens=8.0)


class TestScoring:
    def test_no_token_of_an_answer_is_asked_for_with_echo_and_logprobs(self) -> None:
        body = read({"prompt": "x", "max_tokens": 0, "echo": True, "logprobs": 0})
        assert body["max_tokens"] == 0
        assert ENDPOINTS[COMPLETIONS].demand(body) == AnswerDemand(1, 1), "plans know no request without a token"

    @pytest.mark.parametrize("fields", [{}, {"echo": True}, {"logprobs": 1}, {"echo": False, "logprobs": 1}])
    def test_not_without_either(self, fields: dict[str, Any]) -> None:
        assert (
            "`max_tokens` must be a whole number of 1 or more"
            in refusal({"prompt": "x", "max_tokens": 0, **fields}).message
        )

    def test_nor_in_a_chat(self) -> None:
        assert "`max_tokens`" in refusal({"messages": MESSAGES, "max_tokens": 0, "logprobs": True}, CHAT).message


def test_a_server_gets_other_words_as_they_are_and_one_spelling_of_them() -> None:
    rules = Rules(unknown=None)
    body = read({"prompt": ["x"], "guided_choice": ["a"], "max_completion_tokens": 3.0, "own": 1}, rules=rules)
    assert body == {"prompt": "x", "guided_choice": ["a"], "max_completion_tokens": 3, "own": 1}


def test_what_is_given_is_not_changed() -> None:
    body = {"prompt": ["x"], "stop": ["", "a"], "n": 1.0}
    one_spelling(body)
    assert body == {"prompt": ["x"], "stop": ["", "a"], "n": 1.0}
