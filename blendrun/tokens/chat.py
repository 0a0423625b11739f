"""From a chat request's body to what its template is given, as SGLang's serving_chat.py does it (0.5.23).

SGLang puts messages through pydantic models (protocol.py) before they reach the template: fields it does not know are
gone by then, and those that were left out stand as null in nested objects. The functions here make the same objects
without those models. They check only what rendering needs; a request that the models refuse may pass here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from blendrun.tokens.template import ContentFormat, RenderError
from blendrun.tokens.tools import chosen_tools, template_tools

_ROLES = frozenset(("system", "assistant", "tool", "function", "developer", "latest_reminder", "root"))
_TOOL_BRINGERS = ("root", "system", "developer")
# Other than role and content, in the order of SGLang's model.
_PLAIN_FIELDS = ("tool_call_id", "name", "phase", "reasoning_content", "tool_calls", "tools", "prefix")
_MEDIA_KINDS = {"image_url": "image", "video_url": "video", "audio_url": "audio", "input_audio": "audio"}
_EFFORTS = frozenset(("none", "minimal", "low", "medium", "high", "xhigh", "ultra", "max"))
_YES = frozenset(("1", "true", "yes", "y", "on"))


@dataclass(frozen=True, slots=True)
class Media:
    """One image, video or sound that a prompt refers to. reference: the part's own JSON, which names or holds it."""

    kind: str
    reference: bytes


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a chat template is given for one request.

    prefix: the beginning of the answer that the model goes on from (`continue_final_message`); not templated.
    """

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None
    variables: dict[str, Any]
    prefix: str
    media: list[Media]


def conversation(
    body: Mapping[str, Any],
    content_format: ContentFormat,
    *,
    low_effort: bool = False,
    defaults: Mapping[str, Any] | None = None,
) -> Conversation:
    """Convert a body without null fields.

    low_effort: of the template (`ChatTemplate.low_effort`).
    defaults: the engine's `default_chat_template_kwargs`.

    Raises RenderError.
    """
    media: list[Media] = []
    messages = [_message(message, content_format, media) for message in body["messages"]]
    messages, prefix = _split_off_prefix(messages, bool(body.get("continue_final_message")))
    if not messages:
        raise RenderError("no message is left to render before the one to be continued")
    elsewhere = any(message.get("tools") for message in messages if message["role"] in _TOOL_BRINGERS)
    tools = chosen_tools(_list(body.get("tools"), "tools"), body.get("tool_choice"), elsewhere=elsewhere)
    variables = _variables(body, defaults or {}, low_effort)
    return Conversation(messages, template_tools(tools) if tools else None, variables, prefix, media)


def _message(message: Mapping[str, Any], content_format: ContentFormat, media: list[Media]) -> dict[str, Any]:
    role = message["role"]
    if role != "user":
        role = role.lower()
        if role not in _ROLES:
            raise RenderError(f"`role` cannot be {message['role']!r:.40}")
    content = message.get("content")
    if role == "user" and content is None:
        raise RenderError("a user message must have content")
    if not isinstance(content, str | list | None):
        raise RenderError("`content` must be a string or a list of parts")
    result: dict[str, Any] = {"role": role, "content": content or ""}
    if role != "user":
        for name in _PLAIN_FIELDS:
            if (value := message.get(name)) is not None:
                result[name] = value
        _convert_tools(result)
    if isinstance(content, list):
        if content_format == "openai":
            del result["content"]  # SGLang adds it last, which a template that prints a whole message shows
        result["content"] = _parts(content, content_format, role, media)
    return result


def _convert_tools(message: dict[str, Any]) -> None:
    if "tool_calls" in message:
        calls = _list(message["tool_calls"], "tool_calls")
        message["tool_calls"] = [_tool_call(call, parse=message["role"] == "assistant") for call in calls]
    if "tools" in message:
        message["tools"] = template_tools(_list(message["tools"], "tools"))


def _tool_call(call: Any, *, parse: bool) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        raise RenderError("`tool_calls[].function` must be an object")
    arguments = function.get("arguments")
    if parse and isinstance(arguments, str):
        arguments = _arguments(arguments)
    return {
        "id": call.get("id"),
        "index": call.get("index"),
        "type": call.get("type", "function"),
        "function": {"name": function.get("name"), "arguments": arguments},
    }


def _arguments(text: str) -> dict[str, Any]:
    try:
        arguments = orjson.loads(text)
    except orjson.JSONDecodeError:
        arguments = None
    if not isinstance(arguments, dict):
        raise RenderError("`tool_calls[].function.arguments` must be a JSON object")
    return arguments


def _parts(content: list[Any], content_format: ContentFormat, role: str, media: list[Media]) -> Any:
    texts: list[str] = []
    parts: list[dict[str, Any]] = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(kind, str):
            raise RenderError("`content[]` must be objects, each with a string as `type`")
        if kind == "text":
            texts.append(_text(part))
            parts.append({"type": "text", "text": texts[-1]})
        elif kind in _MEDIA_KINDS:
            parts.append({"type": _MEDIA_KINDS[kind]})
            if content_format == "openai":
                media.append(Media(_MEDIA_KINDS[kind], orjson.dumps(part, option=orjson.OPT_SORT_KEYS)))
        elif kind == "tool_reference":
            parts.append({"type": kind, "name": part.get("name")})
        elif kind not in ("thinking", "reasoning"):  # an earlier turn's thoughts are never shown
            raise RenderError(f"`content[].type` cannot be {kind!r:.40}")
    # A text model's template gets one string; so does any for tool results, where they are text only.
    if content_format == "string" or (role == "tool" and len(texts) == len(parts)):
        return " ".join(texts)
    return parts


def _text(part: dict[str, Any]) -> str:
    text = part.get("text")
    if not isinstance(text, str):
        raise RenderError("`content[].text` must be a string")
    return text


def _split_off_prefix(messages: list[dict[str, Any]], continued: bool) -> tuple[list[dict[str, Any]], str]:
    """SGLang never ends on an assistant's text: it is what the answer begins with, or it becomes the user's."""
    last = messages[-1]
    if last["role"] != "assistant" or not isinstance(last["content"], str):
        return messages, ""
    if continued:
        return messages[:-1], last["content"]
    return [*messages[:-1], {"role": "user", "content": last["content"]}], ""


def _variables(body: Mapping[str, Any], defaults: Mapping[str, Any], low_effort: bool) -> dict[str, Any]:
    """`chat_template_kwargs` with what reasoning fields add to them, in SGLang's order of precedence."""
    given = body.get("chat_template_kwargs")
    if not isinstance(given, dict | None):
        raise RenderError("`chat_template_kwargs` must be an object")
    variables = dict(given or {})
    effort, thinking = _reasoning(body)
    if thinking is not None:
        # Templates ask for one name or the other.
        variables.setdefault("thinking", thinking)
        variables.setdefault("enable_thinking", thinking)
    if (own := variables.pop("reasoning_effort", None)) is not None:
        effort = own
    for name, value in defaults.items():
        variables.setdefault(name, value)
    if effort is None:
        effort = variables.get("reasoning_effort")
    if low_effort and effort == "low":
        variables.setdefault("low_effort", True)
    return variables if effort is None else {"reasoning_effort": effort, **variables}


def _reasoning(body: Mapping[str, Any]) -> tuple[Any, bool | None]:
    """(reasoning effort, whether to think), each None where the body does not say."""
    effort, thinking = body.get("reasoning_effort"), None
    if isinstance(asked := body.get("reasoning"), dict):
        inner = asked.get("effort")
        if inner is None:
            inner = asked.get("reasoning_effort")
        effort = effort if inner is None else inner
        enabled = asked.get("enable", False) if asked.get("enabled") is None else asked["enabled"]
        if enabled.strip().lower() in _YES if isinstance(enabled, str) else enabled:
            thinking = True
    if effort is None:
        return None, thinking
    return _effort(effort), effort != "none"


def _effort(value: Any) -> str | float:
    if isinstance(value, str) and value in _EFFORTS:
        return value
    try:
        number = None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = None
    if number is None or not 0 <= number <= 0.99:
        raise RenderError(f"`reasoning_effort` cannot be {value!r:.40}")
    return number


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list | None):
        raise RenderError(f"`{name}` must be a list")
    return value or []
