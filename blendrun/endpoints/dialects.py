"""What a line asks for in words of vLLM, Together, Fireworks or OpenAI's older API, in words that SGLang reads."""

from __future__ import annotations

import json
from typing import Any

import orjson

from blendrun.endpoints.fields import refuse_field

_CHAT, _COMPLETIONS = "/v1/chat/completions", "/v1/completions"
# vLLM's `structured_outputs`, field by field, and its older fields of their own.
_GUIDED = {"json": "guided_json", "regex": "guided_regex", "choice": "guided_choice", "grammar": "guided_grammar"}
_FORMS = (*_GUIDED.values(), "structured_outputs", "json_schema", "regex", "ebnf")


def for_sglang(url: str, body: dict[str, Any]) -> dict[str, Any]:
    """`body` (of one spelling, without null fields) in SGLang's words; raises LineError where it contradicts itself."""
    if url not in (_CHAT, _COMPLETIONS):
        return body
    body = _one_form(body)
    if url == _CHAT:
        body = _tools(body)
        if "include_reasoning" in body:
            body.setdefault("separate_reasoning", body.pop("include_reasoning"))
        if isinstance(messages := body.get("messages"), list):
            body["messages"] = [_message(each) if isinstance(each, dict) else each for each in messages]
        if not isinstance(body.get("logprobs", False), bool):
            raise refuse_field("logprobs", "in chats it is true or false; `top_logprobs` says how many")
    else:
        if "max_completion_tokens" in body:
            body["max_tokens"] = body.pop("max_completion_tokens")
        if isinstance(body.get("logprobs"), bool):
            body["logprobs"] = 1 if body["logprobs"] else None
    if "include_stop_str_in_output" in body:
        body.setdefault("no_stop_trim", body.pop("include_stop_str_in_output"))
    if body.get("top_k") == 0:
        # vLLM's and transformers' word for the whole vocabulary.
        body["top_k"] = -1
    return body


def _one_form(body: dict[str, Any]) -> dict[str, Any]:
    """The form of the answer, whatever words ask for it, as `response_format`, `regex` or `ebnf`."""
    body = dict(body)
    asked = [name for name in _FORMS if body.get(name) not in (None, "")]
    if isinstance(wanted := body.get("response_format"), dict) and wanted.get("type") != "text":
        asked.insert(0, "response_format")
    if len(asked) > 1:
        raise refuse_field(asked[1], f"an answer has one form, and `{asked[0]}` asks for another; leave one out")
    if "structured_outputs" in body:
        body |= _structured(body.pop("structured_outputs"))
    if "guided_json" in body:
        body["response_format"] = _schema_format(_schema(body.pop("guided_json"), "guided_json"))
    if "json_schema" in body:
        if body["json_schema"] in (None, ""):
            del body["json_schema"]
        else:
            body["response_format"] = _schema_format(_schema(body.pop("json_schema"), "json_schema"))
    if "guided_regex" in body:
        body["regex"] = body.pop("guided_regex")
    if "guided_grammar" in body:
        body["ebnf"] = body.pop("guided_grammar")
    if "guided_choice" in body:
        body["ebnf"] = _choice(body.pop("guided_choice"))
    if isinstance(wanted, dict):
        body |= _response_format(wanted)
        if body["response_format"] is None:
            del body["response_format"]
    return body


def _structured(given: Any) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise refuse_field("structured_outputs", "it must be an object")
    asked = {name: value for name, value in given.items() if value not in (None, False)}
    if len(asked) != 1:
        raise refuse_field("structured_outputs", f"it must have one of {', '.join(_GUIDED)} and json_object")
    name, value = next(iter(asked.items()))
    if name == "json_object":
        return {"response_format": {"type": "json_object"}}
    if name not in _GUIDED:
        raise refuse_field(f"structured_outputs.{name:.40}", f"of its fields {', '.join(_GUIDED)} have an effect")
    return {_GUIDED[name]: value}


def _schema(given: Any, name: str) -> dict[str, Any]:
    if isinstance(given, str):
        try:
            given = orjson.loads(given)
        except orjson.JSONDecodeError as error:
            raise refuse_field(name, f"its text is no JSON ({error.msg})") from None
    if not isinstance(given, dict):
        raise refuse_field(name, "it must be a JSON schema: an object")
    return given


def _schema_format(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


def _choice(given: Any) -> str:
    """A grammar of one text of several."""
    good = isinstance(given, list) and given and all(isinstance(each, str) and each for each in given)
    if not good:
        raise refuse_field("guided_choice", "it must be a list of texts, none of them empty")
    # JSON's escapes are the grammar's.
    return "root ::= " + " | ".join(json.dumps(each) for each in given)


def _response_format(given: dict[str, Any]) -> dict[str, Any]:
    """The fields of a body that say the same. `response_format` is None where others say it."""
    kind, schema = given.get("type"), given.get("schema")
    if kind in ("json_object", "json_schema") and schema is not None and not given.get("json_schema"):
        return {"response_format": _schema_format(_schema(schema, "response_format.schema"))}
    if kind == "regex" and isinstance(given.get("pattern"), str):
        return {"response_format": None, "regex": given["pattern"]}
    if kind == "grammar" and isinstance(given.get("grammar"), str):
        return {"response_format": None, "ebnf": given["grammar"]}
    inner = given.get("json_schema")
    if kind == "json_schema" and isinstance(inner, dict) and inner.get("name") is None:
        return {"response_format": given | {"json_schema": inner | {"name": "answer"}}}
    return {"response_format": given}


def _tools(body: dict[str, Any]) -> dict[str, Any]:
    """OpenAI's `functions` and `function_call`, which `tools` and `tool_choice` replaced."""
    if "functions" in body:
        functions = body.pop("functions")
        if not isinstance(functions, list):
            raise refuse_field("functions", "it must be a list of functions")
        if body.get("tools"):
            raise refuse_field("functions", "`tools` are the newer word for them; leave one out")
        body["tools"] = [{"type": "function", "function": each} for each in functions]
    if "function_call" in body:
        choice = body.pop("function_call")
        if isinstance(choice, dict):
            choice = {"type": "function", "function": choice}
        body.setdefault("tool_choice", choice)
    return body


def _message(message: dict[str, Any]) -> dict[str, Any]:
    role = message.get("role")
    if isinstance(role, str) and role != role.lower():
        message = message | {"role": role.lower()}
    if "reasoning" in message:
        message = dict(message)
        reasoning = message.pop("reasoning")
        if message.get("reasoning_content") is None:
            message["reasoning_content"] = reasoning
    if (call := message.get("function_call")) is not None:
        message = {name: value for name, value in message.items() if name != "function_call"}
        if not message.get("tool_calls"):
            message["tool_calls"] = [{"id": None, "type": "function", "function": call}]
    return message
