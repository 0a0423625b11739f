"""Which fields of a body have no effect on SGLang's engine: a walk through it beside the table of `effects`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from blendrun.endpoints.effects import BODIES, PLACES, UNKNOWN, Effect, Field, harmless, names_near
from blendrun.errors import ErrorCode, LineError
from blendrun.names import UnknownFields

_SHOWN_CHARACTERS = 60


def check_effects(url: str, body: dict[str, Any], unknown: UnknownFields) -> tuple[str, ...]:
    """Names of the fields that are passed over with a warning, each once. body: as its line has it.

    Raises LineError for the first field that asks for what nobody does, unless `unknown` passes those over too.
    """
    noted: dict[str, None] = {}
    for place, name, value, field in _fields(url, body):
        path = f"{place}.{name}" if place else name
        if field.effect is Effect.NOTED and not harmless(field, value):
            noted[_shown(path)] = None
        elif field.effect is Effect.REFUSED and not harmless(field, value):
            if unknown is UnknownFields.ERROR:
                raise LineError(ErrorCode.INVALID_REQUEST, _message(url, place, name, field))
            noted[_shown(path)] = None
    return tuple(noted)


def _message(url: str, place: str, name: str, field: Field) -> str:
    path = _shown(f"{place}.{name}" if place else name)
    table = PLACES[place] if place else BODIES[url]
    near = names_near(table, name) if field is UNKNOWN else []
    meant = f"; did you mean `{near[0]}`?" if near else ""
    return f"`{path}` would have no effect: {field.note}{meant} (--unknown-fields warn passes such fields over)"


def _fields(url: str, body: dict[str, Any]) -> Iterator[tuple[str, str, Any, Field]]:
    """(place, name, value, row) of every field at every depth that the table speaks of."""
    yield from _of(BODIES[url], "", body)
    if url == "/v1/chat/completions":
        for message in _objects(body.get("messages")):
            yield from _message_fields(message)
        for tool in _objects(body.get("tools")):
            yield from _tool_fields(tool, "tools[]")
        yield from _nested(body, "", "tool_choice")
        yield from _nested(_object(body, "tool_choice"), "tool_choice", "function")
        yield from _nested(body, "", "reasoning")
    if url == "/v1/messages":
        yield from _nested(body, "", "thinking")
    form = _object(body, "response_format")
    yield from _of(PLACES["response_format"], "response_format", form)
    yield from _nested(form, "response_format", "json_schema")
    for part in _objects(form.get("structures")):
        yield from _of(PLACES["response_format.structures[]"], "response_format.structures[]", part)


def _message_fields(message: dict[str, Any]) -> Iterator[tuple[str, str, Any, Field]]:
    place = "messages[]"
    table = PLACES["messages[] of the user" if message.get("role") == "user" else place]
    yield from _of(table, place, message)
    for part in _objects(message.get("content")):
        yield from _of(PLACES["messages[].content[]"], "messages[].content[]", part)
        for name in ("image_url", "video_url", "audio_url", "input_audio"):
            yield from _nested(part, "messages[].content[]", name)
    for call in _objects(message.get("tool_calls")):
        yield from _of(PLACES["messages[].tool_calls[]"], "messages[].tool_calls[]", call)
        yield from _nested(call, "messages[].tool_calls[]", "function")
    for tool in _objects(message.get("tools")):
        yield from _tool_fields(tool, "messages[].tools[]")


def _tool_fields(tool: dict[str, Any], place: str) -> Iterator[tuple[str, str, Any, Field]]:
    yield from _of(PLACES[place], place, tool)
    yield from _nested(tool, place, "function")


def _nested(holder: dict[str, Any], place: str, name: str) -> Iterator[tuple[str, str, Any, Field]]:
    path = f"{place}.{name}" if place else name
    yield from _of(PLACES[path], path, _object(holder, name))


def _of(table: dict[str, Field], place: str, holder: dict[str, Any]) -> Iterator[tuple[str, str, Any, Field]]:
    for name, value in holder.items():
        yield place, name, value, table.get(name, UNKNOWN)


def _objects(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _object(holder: dict[str, Any], name: str) -> dict[str, Any]:
    value = holder.get(name)
    return value if isinstance(value, dict) else {}


def _shown(path: str) -> str:
    return path if len(path) <= _SHOWN_CHARACTERS else path[: _SHOWN_CHARACTERS - 1] + "…"
