"""The lines of the field job: what other tools write, and what they must come to. Their ids are the tests' words."""

from __future__ import annotations

from typing import Any

from tests.runtime import requests
from tests.runtime.requests import FRANCE, chat, schema_format

SKY = [{"role": "user", "content": "Is the sky blue? Answer yes or no."}]
BLUE = {
    "type": "object",
    "properties": {"blue": {"type": "boolean"}},
    "required": ["blue"],
    "additionalProperties": False,
}
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}},
    "required": ["city"],
    "additionalProperties": False,
}


def _line(made: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return made | fields


def completion(custom_id: str, prompt: Any, **body: Any) -> dict[str, Any]:
    """prompt: in any spelling."""
    return requests.completion(custom_id, prompt, **body)


def sky(custom_id: str, **body: Any) -> dict[str, Any]:
    return chat(custom_id, SKY, **{"max_tokens": 8, **body})


def responses(custom_id: str, given: Any, **body: Any) -> dict[str, Any]:
    """given: `input`, in any spelling."""
    return {"custom_id": custom_id, "url": "/v1/responses", "body": {"input": given, "temperature": 0, **body}}


def anthropic(custom_id: str, messages: Any, **params: Any) -> dict[str, Any]:
    return {"custom_id": custom_id, "params": {"messages": messages, "temperature": 0, **params}}


def weather(custom_id: str, choice: object, **function: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": CITY, **function}}
    return chat(custom_id, messages, max_tokens=80, tools=[tool], tool_choice=choice)


def clock(custom_id: str, arguments: object) -> dict[str, Any]:
    call = {"id": "call_1", "type": "function", "function": {"name": "now", "arguments": arguments}}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "What time is it?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "12:00"},
    ]
    return chat(custom_id, messages, max_tokens=8)


NAMED = {"type": "function", "function": {"name": "get_weather"}}
PROMPT = "The capital of France is"
# By what must be equal to what: the first of each list is the usual way to write it.
SAME: dict[str, list[dict[str, Any]]] = {
    "chat": [
        sky("sky"),
        sky("stop is empty", stop=""),
        sky("one stop is empty", stop=["###", ""]),
        sky("numbers with a point", max_tokens=8.0, n=1.0),
        _line(sky("azure"), url="/chat/completions"),
        _line(sky("whole address"), url="https://api.openai.com/v1/chat/completions"),
        sky("streamed", stream=True),
        sky("bookkeeping", user="u", metadata={"a": "b"}, store=False, service_tier="auto"),
        responses("responses", SKY, max_output_tokens=8),
        anthropic("anthropic", SKY, max_tokens=8),
    ],
    "completion": [
        completion("prompt", PROMPT, max_tokens=4),
        completion("one prompt", [PROMPT], max_tokens=4),
        completion("one list of ids", [[504, 3575, 282, 4649, 314]], max_tokens=4),
        completion("stop of a completion", PROMPT, max_tokens=4.0, stop=[""]),
    ],
    "system": [
        chat("system", [{"role": "system", "content": "Answer yes or no."}, *SKY], max_tokens=8),
        responses("instructions", SKY[0]["content"], instructions="Answer yes or no.", max_output_tokens=8),
        anthropic("system of its own", SKY, system="Answer yes or no.", max_tokens=8),
    ],
    "calls": [clock("arguments", "{}"), clock("no arguments", ""), clock("null arguments", None)],
}
CONTROL = completion("control", f"{PROMPT} Paris", max_tokens=1, echo=True, logprobs=1)
YES_OR_NO = [
    sky("regex", regex="(yes|no)"),
    sky("guided choice", guided_choice=["yes", "no"]),
    sky("guided regex", guided_regex="(yes|no)"),
    sky("structured outputs", structured_outputs={"choice": ["yes", "no"]}),
    responses("regex of a response", SKY, regex="(yes|no)", max_output_tokens=8),
]
OBJECTS = [
    sky("guided json", guided_json=BLUE, max_tokens=60),
    sky("object with a schema", response_format={"type": "json_object", "schema": BLUE}, max_tokens=60),
    sky("json schema", json_schema=BLUE, max_tokens=60),
    responses(
        "text format",
        SKY,
        text={"format": {"type": "json_schema", "name": "sky", "schema": BLUE}},
        max_output_tokens=60,
    ),
    anthropic("output config", SKY, output_config={"format": {"type": "json_schema", "schema": BLUE}}, max_tokens=60),
]
CALLS = [
    weather("required, strict", "required", strict=True),
    weather("required", "required"),
    weather("named, not strict", NAMED, strict=False),
    chat(
        "functions",
        [{"role": "user", "content": "What is the weather in Paris?"}],
        max_tokens=80,
        functions=[{"name": "get_weather", "parameters": CITY}],
        function_call={"name": "get_weather"},
    ),
]
OTHERS = [
    CONTROL,
    completion("score", f"{PROMPT} Paris", max_tokens=0, echo=True, logprobs=1),
    completion("score of ids", [504, 3575, 282, 4649, 314], max_tokens=0, echo=True, logprobs=0),
    completion("several", [PROMPT, "Water boils at"], max_tokens=4, n=2, logprobs=1),
    completion("water", "Water boils at", max_tokens=4),
    chat("cut short", FRANCE, max_tokens=3, response_format=schema_format(CITY)),
]
GOOD = [*(each for group in SAME.values() for each in group), *YES_OR_NO, *OBJECTS, *CALLS, *OTHERS]
# What only the engine knows; all else is refused when the job is read, and tested there.
BAD = [
    completion("bias outside the vocabulary", "x", logit_bias={"99999999": 1}),
    chat("bad tag", response_format={"type": "structural_tag", "structures": [], "triggers": 5}),
    completion("too many in one of two", ["x", "word " * 9000]),
    completion("stop outside the vocabulary", "x", stop_token_ids=[99999999], min_tokens=2),
]
