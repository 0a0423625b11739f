"""What is wrong with a chat's parts is said with the place and what it may be."""

from __future__ import annotations

from typing import Any

import pytest

from blendrun.endpoints.rules import Rules
from blendrun.errors import ErrorCode, LineError

HI = {"role": "user", "content": "Hi"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def refusal(**body: Any) -> str:
    with pytest.raises(LineError) as caught:
        Rules().admit("/v1/chat/completions", {"messages": [HI], **body})
    assert caught.value.code is ErrorCode.INVALID_REQUEST
    return caught.value.message


@pytest.mark.parametrize(
    ("message", "place", "words"),
    [
        ({"role": "user", "content": None}, "content", "it is null"),
        ({"role": "user"}, "content", "it is missing"),
        ({"role": "user", "content": 5}, "content", "not a number"),
        ({"role": "user", "content": {"type": "text"}}, "content", "not an object"),
        ({"role": "user", "content": ["x"]}, "content[0]", "not a string"),
        ({"role": "user", "content": [None]}, "content[0]", "not null"),
        ({"role": "user", "content": [{"type": "text", "text": "x"}, {"text": "x"}]}, "content[1].type", "not None"),
        ({"role": "user", "content": [{"type": "input_text", "text": "x"}]}, "content[0].type", "it is called 'text'"),
        ({"role": "user", "content": [{"type": "video"}]}, "content[0].type", "'video_url'"),
        ({"role": "user", "content": [{"type": "text"}]}, "content[0].text", "not null"),
        ({"role": "user", "content": [{"type": "text", "text": 5}]}, "content[0].text", "not a number"),
        (
            {"role": "user", "content": [{"type": "input_audio", "input_audio": "x"}]},
            "content[0].input_audio",
            "object",
        ),
        ({"role": "system", "content": 5}, "content", "not a number"),
        ({"role": "tool", "content": {"a": 1}}, "content", "not an object"),
        ({"role": "wizard", "content": "x"}, "role", "'assistant'"),
        ({"role": "assistant", "tool_calls": {}}, "tool_calls", "a list of calls"),
        ({"role": "assistant", "tool_calls": ["x"]}, "tool_calls[0]", "a call must be"),
        ({"role": "assistant", "tool_calls": [{"function": {"arguments": "{}"}}]}, "tool_calls[0]", "a call must be"),
    ],
)
def test_messages(message: dict[str, Any], place: str, words: str) -> None:
    text = refusal(messages=[HI, message])
    assert text.startswith(f"`messages[1].{place}`")
    assert words in text
    assert place == "role" or "role" not in text


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        ({"tool_choice": "any"}, "tool_choice", "'none', 'auto', 'required'"),
        ({"tool_choice": {"type": "function"}}, "tool_choice", '{"type": "function"'),
        ({"tool_choice": {"type": "allowed_tools", "function": {"name": "f"}}}, "tool_choice", "'required'"),
        ({"tool_choice": ["f"]}, "tool_choice", "'required'"),
        ({"response_format": "json"}, "response_format", "not a string"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "'json_schema'"),
        ({"response_format": {}}, "response_format.type", "not None"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "`schema`"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
            "response_format.json_schema",
            "sch",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {}, "strict": "yes"}}},
            "response_format.json_schema.strict",
            "true or false",
        ),
        ({"tools": {"type": "function"}}, "tools", "a list of tools"),
        ({"tools": [{"name": "f"}]}, "tools[0]", "a tool must be"),
        ({"tools": [TOOL, {"type": "web_search", "function": {"name": "x"}}]}, "tools[1].type", "'function'"),
        ({"tools": [{"function": {"name": "f", "parameters": "x"}}]}, "tools[0].function.parameters", "JSON schema"),
        ({"logit_bias": "x"}, "logit_bias", "an object"),
    ],
)
def test_unions_of_the_request_model(body: dict[str, Any], field: str, words: str) -> None:
    if field == "logit_bias":
        from blendrun.endpoints.registry import ENDPOINTS

        with pytest.raises(LineError) as caught:
            ENDPOINTS["/v1/chat/completions"].validate({"messages": [HI], **body})
        text = caught.value.message
    else:
        text = refusal(**{"unknown": None, **body})
    assert field in text.split("`")[1]
    assert words in text


@pytest.mark.parametrize(
    "body",
    [
        {
            "messages": [
                HI,
                {"role": "assistant", "content": None},
                {"role": "tool", "content": "x", "tool_call_id": "c"},
            ]
        },
        {"messages": [{"role": "system", "content": [{"type": "text", "text": "x"}]}, HI]},
        {"tools": [TOOL], "tool_choice": "auto"},
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}},
        {"response_format": {"type": "text"}},
        {"response_format": {"type": "structural_tag", "structures": [], "triggers": []}},
        {"messages": [{"role": "function", "name": "f", "content": "x"}, HI]},
    ],
)
def test_good_ones_pass(body: dict[str, Any]) -> None:
    Rules().admit("/v1/chat/completions", {"messages": [HI], **body})
