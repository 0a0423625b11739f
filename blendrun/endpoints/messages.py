"""What a chat's parts must be for SGLang's request model, in words that name the place.

The model itself is a union in many places, and says of a bad one what the first member of the union wanted.
"""

from __future__ import annotations

from typing import Any

import orjson

from blendrun.endpoints.fields import refuse_field

_ROLES = ("user", "system", "assistant", "tool", "developer", "function", "latest_reminder", "root")
# Kinds of part, and the field that holds each one.
_PARTS = {
    "text": "text",
    "image_url": "image_url",
    "video_url": "video_url",
    "audio_url": "audio_url",
    "input_audio": "input_audio",
    "thinking": None,
    "reasoning": None,
    "tool_reference": "name",
}
# What OpenAI's Responses API calls them.
_ELSEWHERE = {"input_text": "text", "output_text": "text", "input_image": "image_url", "input_file": None, "file": None}
_FORMATS = ("text", "json_object", "json_schema", "structural_tag")
_CHOICES = ("none", "auto", "required")


def check_chat(body: dict[str, Any]) -> None:
    """Raises LineError for messages, tools or a choice of tools that SGLang's model would refuse."""
    for number, message in enumerate(body["messages"]):
        _check_message(f"messages[{number}]", message)
    if (tools := body.get("tools")) is not None:
        _check_tools("tools", tools)
    _check_choice(body.get("tool_choice"))


def check_response_format(body: dict[str, Any]) -> None:
    """Raises LineError for a form of the answer that no engine here knows."""
    wanted = body.get("response_format")
    if wanted is None:
        return
    if not isinstance(wanted, dict):
        raise refuse_field(
            "response_format", f'it must be an object such as {{"type": "json_object"}}, not {_is(wanted)}'
        )
    kind = wanted.get("type")
    if kind not in _FORMATS:
        raise refuse_field("response_format.type", f"it must be one of {_listed(_FORMATS)}, not {kind!r:.40}")
    if kind != "json_schema":
        return
    inner = wanted.get("json_schema")
    if not isinstance(inner, dict) or not isinstance(inner.get("schema"), dict):
        raise refuse_field("response_format.json_schema", 'it must be an object with a `schema`: {"schema": {...}}')
    if not isinstance(inner.get("name"), str):
        raise refuse_field("response_format.json_schema.name", f"it must be a string, not {_is(inner.get('name'))}")
    if not isinstance(inner.get("strict"), bool | None):
        raise refuse_field("response_format.json_schema.strict", "it must be true or false")


def _check_message(place: str, message: dict[str, Any]) -> None:
    role = message["role"]
    if role not in _ROLES:
        raise refuse_field(f"{place}.role", f"it must be one of {_listed(_ROLES)}, not {role!r:.40}")
    content = message.get("content")
    if isinstance(content, list):
        for number, part in enumerate(content):
            _check_part(f"{place}.content[{number}]", part)
    elif content is None and role == "user":
        is_what = "it is null" if "content" in message else "it is missing"
        raise refuse_field(f"{place}.content", f"{is_what}; a user's message has a string or a list of parts")
    elif not isinstance(content, str | None):
        raise refuse_field(f"{place}.content", f"it must be a string or a list of parts, not {_is(content)}")
    if (calls := message.get("tool_calls")) is not None:
        _check_calls(f"{place}.tool_calls", calls)
    if (tools := message.get("tools")) is not None:
        _check_tools(f"{place}.tools", tools)


def _check_part(place: str, part: Any) -> None:
    if not isinstance(part, dict):
        raise refuse_field(
            place, f'a part must be an object such as {{"type": "text", "text": "..."}}, not {_is(part)}'
        )
    kind = part.get("type")
    if not isinstance(kind, str) or kind not in _PARTS:
        instead = _ELSEWHERE.get(kind) if isinstance(kind, str) else None
        meant = f" (here it is called {instead!r})" if instead else ""
        raise refuse_field(f"{place}.type", f"it must be one of {_listed(_PARTS)}, not {kind!r:.40}{meant}")
    holder = _PARTS[kind]
    if holder is None:
        return
    value = part.get(holder)
    if holder in ("text", "name"):
        if not isinstance(value, str):
            raise refuse_field(f"{place}.{holder}", f"it must be a string, not {_is(value)}")
    elif not isinstance(value, dict):
        raise refuse_field(f"{place}.{holder}", f"it must be an object, not {_is(value)}")


def _check_calls(place: str, calls: Any) -> None:
    if not isinstance(calls, list):
        raise refuse_field(place, f"it must be a list of calls, not {_is(calls)}")
    for number, call in enumerate(calls):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise refuse_field(
                f"{place}[{number}]", 'a call must be an object with {"function": {"name": ..., "arguments": "..."}}'
            )
        _check_arguments(f"{place}[{number}].function.arguments", function.get("arguments"))


def _check_arguments(place: str, arguments: Any) -> None:
    """Templates take them apart."""
    if isinstance(arguments, str):
        try:
            arguments = orjson.loads(arguments)
        except orjson.JSONDecodeError:
            raise refuse_field(place, "it must be the JSON text of an object") from None
    if not isinstance(arguments, dict):
        raise refuse_field(place, f"it must be the JSON text of an object, not of {_is(arguments)}")


def _check_tools(place: str, tools: Any) -> None:
    if not isinstance(tools, list):
        raise refuse_field(place, f"it must be a list of tools, not {_is(tools)}")
    for number, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise refuse_field(
                f"{place}[{number}]",
                'a tool must be {"type": "function", "function": {"name": ..., "parameters": {...}}}',
            )
        if tool.get("type", "function") != "function":
            raise refuse_field(f"{place}[{number}].type", f"it must be 'function', not {tool['type']!r:.40}")
        if not isinstance(function.get("parameters"), dict | None):
            raise refuse_field(f"{place}[{number}].function.parameters", "it must be a JSON schema: an object")
        if not isinstance(function.get("strict"), bool | None):
            raise refuse_field(f"{place}[{number}].function.strict", "it must be true or false")


def _check_choice(choice: Any) -> None:
    if choice is None or choice in _CHOICES:
        return
    function = (
        choice.get("function") if isinstance(choice, dict) and choice.get("type", "function") == "function" else None
    )
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise refuse_field(
            "tool_choice",
            f'it must be one of {_listed(_CHOICES)}, or {{"type": "function", "function": {{"name": ...}}}}',
        )


def _listed(names: Any) -> str:
    return ", ".join(repr(name) for name in names)


def _is(value: Any) -> str:
    """JSON's name for what a value is."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    return "a string" if isinstance(value, str) else "a list" if isinstance(value, list) else "an object"
