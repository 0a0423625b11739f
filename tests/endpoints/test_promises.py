"""Whether an answer keeps what its request was promised."""

from __future__ import annotations

import json
from typing import Any

import pytest

from blendrun.endpoints.promises import Promise, promise_of

CITY = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 5}}, "required": ["city"]}
FORMAT = {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": CITY}}}
TOOLS = [
    {"type": "function", "function": {"name": "f", "parameters": CITY}},
    {"type": "function", "function": {"name": "g", "strict": True, "parameters": CITY}},
]


def promise(**body: Any) -> Promise:
    found = promise_of(body)
    assert found is not None
    return found


def text(content: str | None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": {"role": "assistant", "content": content}, **fields}]}


def call(*calls: tuple[str, str]) -> dict[str, Any]:
    made = [{"function": {"name": name, "arguments": arguments}} for name, arguments in calls]
    return {"choices": [{"index": 0, "message": {"role": "assistant", "content": None, "tool_calls": made}}]}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"response_format": {"type": "text"}},
        {"regex": "a"},
        {"tools": TOOLS, "tool_choice": "none"},
        {"tool_choice": "required"},
        {"response_format": "x", "tools": "y"},
    ],
)
def test_what_may_be_anything(body: dict[str, Any]) -> None:
    assert promise_of(body) is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"city": "Paris"}', None),
        ('{"city": "London"}', "the answer.city: 'London' is too long"),
        ("{}", "'city' is a required property"),
        ('"Paris"', "'Paris' is not of type 'object'"),
        ("Paris", "the answer is no JSON"),
        ("", "the answer is no JSON"),
        (None, "the answer is empty"),
        ('{"city": 5}', "the answer.city: 5 is not of type 'string'"),
        ("[" * 100_000, "the answer is no JSON"),
    ],
)
def test_a_schema(content: str | None, reason: str | None) -> None:
    found = promise(**FORMAT).broken_by(text(content))
    assert found is None if reason is None else found is not None and reason in found


def test_any_object_where_only_json_is_promised() -> None:
    any_object = promise(response_format={"type": "json_object"})
    assert any_object.broken_by(text('{"a": 1}')) is None
    assert any_object.broken_by(text("[1]")) is not None


def test_completions_and_every_choice() -> None:
    body = {"choices": [{"text": '{"city": "Rome"}'}, {"text": "no"}]}
    assert str(promise(**FORMAT).broken_by(body)).startswith("choice 1: the answer is no JSON")


def test_an_answer_that_was_cut_short_says_so() -> None:
    found = promise(**FORMAT).broken_by(text('{"city": "Pa', finish_reason="length"))
    assert str(found).startswith("it was cut short at its token limit: ")


@pytest.mark.parametrize(
    ("body", "answer", "reason"),
    [
        ({"tool_choice": "required"}, call(("f", '{"city": "Rome"}')), None),
        ({"tool_choice": "required"}, call(("f", '"Rome"')), "call of f: 'Rome' is not of type 'object'"),
        ({"tool_choice": "required"}, call(("f", "")), "call of f is no JSON"),
        ({"tool_choice": "required"}, text("Rome"), "no tool was called"),
        ({"tool_choice": "required"}, call(("h", "{}")), "the tool 'h' was called"),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, call(("g", '{"city": "Rome"}')), "'g' was"),
        ({}, text("I know that"), None),
        ({}, call(("f", "weather_mattu")), "call of f is no JSON"),
        ({}, call(("f", '{"any": "object"}')), None),
        ({}, call(("g", "{}")), "call of g: 'city' is a required property"),
        ({"parallel_tool_calls": False}, call(("f", "{}"), ("f", "{}")), "2 tools were called at once"),
    ],
)
def test_calls(body: dict[str, Any], answer: dict[str, Any], reason: str | None) -> None:
    found = promise(tools=TOOLS, **body).broken_by(answer)
    assert found is None if reason is None else found is not None and reason in found


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "http://127.0.0.1:1/schema"},
        {"$ref": "file:///etc/passwd"},
        {"type": "objet"},
        {"type": "string", "pattern": "((("},
        {"$ref": "#"},
    ],
)
def test_a_schema_that_cannot_be_followed_opens_nothing_and_says_nothing(schema: dict[str, Any]) -> None:
    kept = promise(response_format={"type": "json_schema", "json_schema": {"schema": schema}})
    assert kept.broken_by(text('"x"')) is None


@pytest.mark.parametrize("pattern", ["^(a+)+$", "^(a|a)*$", "^(a|aa)+$", "(.*a){20}", r"^(\w+\s?)*$"])
def test_a_pattern_that_takes_forever_is_not_tried(pattern: str) -> None:
    schema = {
        "type": "object",
        "properties": {"x": {"type": "string", "pattern": pattern}},
        "patternProperties": {pattern: {}},
    }
    kept = promise(response_format={"type": "json_schema", "json_schema": {"schema": schema}})
    assert kept.broken_by(text(json.dumps({"x": "a" * 40 + "!"}))) is None


def test_a_plain_pattern_is() -> None:
    schema = {"type": "string", "pattern": "^[a-z]+-[0-9]{2,4}$"}
    kept = promise(response_format={"type": "json_schema", "json_schema": {"schema": schema}})
    assert kept.broken_by(text('"ab-12"')) is None
    assert "does not match" in str(kept.broken_by(text('"AB"')))
