"""The feature job: a line for everything a request may ask for, and one of each mistake."""

from __future__ import annotations

from typing import Any

import orjson

FRANCE = [{"role": "user", "content": "What is the capital of France?"}]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 12}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
PASSAGE = (
    "The harbour office opens at six in the morning and closes when the last ferry has left. "
    "Tickets are sold at the window, and dogs travel free. "
) * 8
# Greedy prompts whose answers plain SGLang must give too.
PLAIN_PROMPTS = [
    "The capital of France is",
    "Water boils at",
    "Once upon a time, in a small village,",
    "def fibonacci(n):",
    "The three primary colours are",
    f"{PASSAGE}\nThe harbour office opens at",
    f"{PASSAGE}\nDogs travel",
    f"{PASSAGE}\nTickets are sold",
]
PLAIN_TOKENS = 24


def chat(custom_id: str, messages: list[dict[str, Any]] | None = None, **body: Any) -> dict[str, Any]:
    content = {"model": "any-name", "messages": messages or FRANCE, "max_tokens": 24, "temperature": 0, **body}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": content}


def completion(custom_id: str, prompt: str | list[int], **body: Any) -> dict[str, Any]:
    content = {"model": "any-name", "prompt": prompt, "max_tokens": PLAIN_TOKENS, "temperature": 0, **body}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/completions", "body": content}


def schema_format(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


GOOD: list[dict[str, Any]] = [
    chat("plain"),
    chat("two choices", n=2, temperature=1.0),
    chat("logprobs", logprobs=True, top_logprobs=2, max_tokens=4),
    chat("stop", stop=["France"]),
    chat("seed 7", seed=7, temperature=1.0),
    chat("seed 7 again", seed=7, temperature=1.0),
    chat("seed 8", seed=8, temperature=1.0),
    chat("seed 7 min-p", seed=7, temperature=1.0, min_p=0.05, top_p=0.9),
    chat("no seed", temperature=1.0),
    chat("schema", response_format=schema_format(SCHEMA), max_tokens=48),
    chat("json object", response_format={"type": "json_object"}, max_tokens=48),
    chat("tool", tools=[WEATHER], tool_choice="required", max_tokens=64),
    chat("more than the context", max_tokens=100_000, stop=["."]),
    {key: value for key, value in chat("no method").items() if key != "method"},
    # The pattern ends the answer; without one a small model may go on to the end of its context.
    completion("open end", "The alphabet:", max_tokens=None, regex="( [a-z]){24}"),
    completion("token ids", [504, 3575, 282, 4649, 314]),
    completion("completion logprobs", "The sky is", logprobs=2, max_tokens=3),
    *(completion(f"greedy {number}", prompt) for number, prompt in enumerate(PLAIN_PROMPTS)),
]

# What is wrong, and the code it must get. The last ones are found only by tokenizer, grammar compiler or engine.
BAD: list[tuple[bytes, str]] = [
    (b'{"custom_id": "not json", ', "invalid_json"),
    (b'{"custom_id": "not utf-8 \xff"}', "invalid_json"),
    (orjson.dumps({key: value for key, value in chat("x").items() if key != "custom_id"}), "invalid_request"),
    (orjson.dumps(chat("plain")), "duplicate_custom_id"),
    (orjson.dumps({**chat("wrong url"), "url": "/v1/imaginary"}), "invalid_request"),
    (orjson.dumps(chat("slip of the pen", max_token=8)), "invalid_request"),
    (orjson.dumps(chat("too long", [{"role": "user", "content": "word " * 9000}])), "context_length_exceeded"),
    # SGLang admits seven tokens less than the context of 8,192.
    (orjson.dumps(completion("just too long", [504] * 8186)), "context_length_exceeded"),
    (orjson.dumps(chat("bad schema", response_format=schema_format({"type": "objet"}))), "schema_unsupported"),
    (orjson.dumps(completion("bad regex", "A", regex="(((")), "schema_unsupported"),
    (orjson.dumps(completion("dead grammar", "A", ebnf="root ::= root")), "schema_unsupported"),
    (orjson.dumps(completion("dead end", "A", ebnf='root ::= "a" x\nx ::= x')), "schema_unsupported"),
    (orjson.dumps(chat("dead schema", response_format=schema_format({"$ref": "#"}))), "schema_unsupported"),
    (orjson.dumps(completion("bad stop", "A", stop_regex="[")), "invalid_request"),
    (orjson.dumps(completion("unknown token", [1, 2, 999_999])), "invalid_request"),
    (orjson.dumps(chat("bad temperature", temperature=-3.0)), "invalid_request"),
    (orjson.dumps(chat("bad role", [{"role": "wizard", "content": "Hm."}])), "invalid_request"),
]


def first_bad_line() -> int:
    """1-based line number of BAD[0] in the job."""
    return len(GOOD) + 1


def feature_job() -> bytes:
    return b"\n".join([*map(orjson.dumps, GOOD), *(line for line, _ in BAD)]) + b"\n"
