"""Words of vLLM, Together, Fireworks and OpenAI's older API, as SGLang is told them."""

from __future__ import annotations

from typing import Any

import pytest

from blendrun.endpoints.rules import Rules
from blendrun.errors import LineError

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
AS_FORMAT = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
GOOD: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "Hi"}]},
    COMPLETIONS: {"prompt": "Hi"},
}


def told(url: str, **fields: Any) -> dict[str, Any]:
    body, noted = Rules().admit(url, GOOD[url] | fields)
    assert noted == ()
    return {name: value for name, value in body.items() if name not in GOOD[url]}


def refusal(url: str = CHAT, **fields: Any) -> str:
    with pytest.raises(LineError) as caught:
        Rules().admit(url, GOOD[url] | fields)
    return caught.value.message


@pytest.mark.parametrize("url", GOOD)
@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({"guided_json": SCHEMA}, {"response_format": AS_FORMAT}),
        (
            {"guided_json": '{"type": "object"}'},
            {"response_format": AS_FORMAT | {"json_schema": {"name": "answer", "schema": {"type": "object"}}}},
        ),
        ({"structured_outputs": {"json": SCHEMA, "regex": None}}, {"response_format": AS_FORMAT}),
        ({"structured_outputs": {"json_object": True}}, {"response_format": {"type": "json_object"}}),
        ({"structured_outputs": {"choice": ["a", 'b"c']}}, {"ebnf": 'root ::= "a" | "b\\"c"'}),
        ({"guided_choice": ["yes", "no"]}, {"ebnf": 'root ::= "yes" | "no"'}),
        ({"guided_regex": "a+"}, {"regex": "a+"}),
        ({"structured_outputs": {"regex": "a+"}}, {"regex": "a+"}),
        ({"guided_grammar": 'root ::= "x"'}, {"ebnf": 'root ::= "x"'}),
        (
            {"json_schema": '{"type": "object"}'},
            {"response_format": AS_FORMAT | {"json_schema": {"name": "answer", "schema": {"type": "object"}}}},
        ),
        ({"response_format": {"type": "json_object", "schema": SCHEMA}}, {"response_format": AS_FORMAT}),
        ({"response_format": {"type": "json_schema", "schema": SCHEMA}}, {"response_format": AS_FORMAT}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}},
            {"response_format": AS_FORMAT | {"json_schema": {"schema": SCHEMA, "name": "answer"}}},
        ),
        ({"response_format": {"type": "regex", "pattern": "a+"}}, {"regex": "a+"}),
        ({"response_format": {"type": "grammar", "grammar": 'root ::= "x"'}}, {"ebnf": 'root ::= "x"'}),
        (
            {"response_format": {"type": "text"}, "guided_regex": "a"},
            {"response_format": {"type": "text"}, "regex": "a"},
        ),
    ],
)
def test_forms_of_answers(url: str, given: dict[str, Any], meant: dict[str, Any]) -> None:
    assert told(url, **given) == meant


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"guided_json": SCHEMA, "regex": "a"}, "`regex`: an answer has one form, and `guided_json` asks for another"),
        ({"response_format": AS_FORMAT, "guided_choice": ["a"]}, "and `response_format` asks for another"),
        ({"guided_choice": []}, "`guided_choice`: it must be a list of texts"),
        ({"guided_choice": ["a", 1]}, "`guided_choice`"),
        ({"guided_json": "{"}, "`guided_json`: its text is no JSON"),
        ({"guided_json": [1]}, "`guided_json`: it must be a JSON schema"),
        ({"structured_outputs": {}}, "`structured_outputs`: it must have one of json, regex, choice, grammar"),
        ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "`structured_outputs`"),
        ({"structured_outputs": {"structural_tag": "x"}}, "`structured_outputs.structural_tag`"),
        ({"structured_outputs": "x"}, "`structured_outputs`: it must be an object"),
        ({"guided_regex": "(?!a)b"}, "`regex`: lookahead (`(?!`) is not kept"),
    ],
)
def test_forms_that_contradict_or_are_none(given: dict[str, Any], words: str) -> None:
    assert words in refusal(**given)


def test_functions_are_tools() -> None:
    function = {"name": "f", "parameters": SCHEMA}
    assert told(CHAT, functions=[function], function_call={"name": "f"}) == {
        "tools": [{"type": "function", "function": function}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
    }
    assert told(CHAT, functions=[function], function_call="auto")["tool_choice"] == "auto"
    assert "`functions`" in refusal(functions=[function], tools=[{"type": "function", "function": function}])
    assert "`functions`" in refusal(functions=function)


def test_messages_of_other_times_and_tools() -> None:
    body, _ = Rules().admit(
        CHAT,
        {
            "messages": [
                {"role": "USER", "content": "Hi"},
                {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
                {"role": "assistant", "content": "x", "reasoning": "because"},
            ]
        },
    )
    user, called, thought = body["messages"]
    assert user["role"] == "user"
    assert called["tool_calls"] == [{"id": None, "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    assert "function_call" not in called
    assert thought == {"role": "assistant", "content": "x", "reasoning_content": "because"}


def test_reasoning_apart_or_not() -> None:
    assert told(CHAT, include_reasoning=False) == {"separate_reasoning": False}
    assert told(CHAT, include_reasoning=False, separate_reasoning=True) == {"separate_reasoning": True}


def test_a_translation_cannot_bring_what_a_line_may_not() -> None:
    assert "`priority` is not taken" in refusal(priority=1)
    assert "`logprobs`: in chats it is true or false" in refusal(logprobs=5)
