"""What a request asks and what an answer says, as text."""

from __future__ import annotations

from typing import Any

import pytest

from blendrun.endpoints.registry import ENDPOINTS
from blendrun.endpoints.words import answer_text, prompt_text, prompt_turns

CHAT = ENDPOINTS["/v1/chat/completions"]


def test_a_chat_is_its_turns() -> None:
    call = {"type": "function", "function": {"name": "weather", "arguments": "{}"}}
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "x"}}]
    body = {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": parts},
            {"role": "assistant", "content": None, "tool_calls": [call]},
        ]
    }
    assert prompt_turns(CHAT, body) == [
        ("system", "Be brief."),
        ("user", "What is this?\n[image_url]"),
        ("assistant", '{"name": "weather", "arguments": "{}"}'),
    ]
    assert prompt_text(CHAT, body).startswith("Be brief.\nWhat is this?")


def test_a_prompt_without_turns_is_itself() -> None:
    endpoint = ENDPOINTS["/v1/completions"]
    assert prompt_turns(endpoint, {"prompt": "Once upon"}) == [("", "Once upon")]
    assert prompt_turns(endpoint, {"prompt": [1, 2, 3]}) == [("", "[3 token ids]")]


@pytest.mark.parametrize(
    "body, words",
    [
        ({"choices": [{"message": {"content": "Hi."}}, {"message": {"content": "Hello."}}]}, "Hi."),
        ({"choices": [{"message": {"content": None, "tool_calls": [{"function": {"name": "f"}}]}}]}, '{"name": "f"}'),
        ({"choices": [{"text": " a time"}]}, " a time"),
        ({"text": "generated"}, "generated"),
        ({"data": [{"embedding": [0.5, 0.25, 1.0, 2.0, 3.0]}]}, "0.5, 0.25, 1, 2, … (5 numbers)"),
        ({"data": [{"embedding": "AAAA"}]}, '"AAAA"'),
        ({"output": [{"type": "message", "content": [{"type": "output_text", "text": "Hi."}]}]}, "Hi."),
        ({"scores": [1, 2]}, '{"scores": [1, 2]}'),
        (None, ""),
    ],
)
def test_an_answer_is_its_first_one(body: Any, words: str) -> None:
    assert answer_text({"response": {"body": body}, "error": None}) == words


def test_anthropics_answers_and_errors_are_read_too() -> None:
    message = {"content": [{"type": "text", "text": "Hi."}, {"type": "tool_use", "name": "f", "input": {}}]}
    told = answer_text({"result": {"type": "succeeded", "message": message}})
    assert told == 'Hi.\n{"type": "tool_use", "name": "f", "input": {}}'
    assert answer_text({"response": None, "error": {"code": "engine_error", "message": "no"}}) == "engine_error: no"
    assert answer_text({}) == ""
