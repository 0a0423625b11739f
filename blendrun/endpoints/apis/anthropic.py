"""/v1/messages, Anthropic's Messages API: its bodies, and the lines of its batches (`{"custom_id", "params"}`)."""

from __future__ import annotations

import json
from typing import Any

import orjson

from blendrun.endpoints.apis.base import (
    Api,
    Body,
    Facts,
    as_list,
    as_object,
    as_text,
    cached_tokens,
    first_choice,
    one_text,
    suffix,
    tool_call,
    without,
)
from blendrun.endpoints.fields import refuse_field

_MARKS = ("cache_control", "citations")
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_STOPS = {"length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
_REFUSED, _BROKEN = 400, 500
_ERRORS = {400: "invalid_request_error", 404: "not_found_error", 413: "request_too_large", 429: "rate_limit_error"}


class Messages(Api):
    """Text, images, tools that the client runs, thinking; no tools that a server runs, no files of a server."""

    url = "/v1/messages"

    def chat(self, body: Body) -> Body:
        said = {name: value for name, value in body.items() if value is not None}
        told = self.kept(said)
        # An empty one is none, to SGLang's server too: templates may write something of their own in its place.
        system = _system(said.get("system", ""))
        messages = [{"role": "system", "content": system}] if system.strip() else []
        given = said.get("messages")
        if not isinstance(given, list) or not given:
            raise refuse_field("messages", "it must be a list of at least one message")
        for place, message in enumerate(given):
            name = f"messages[{place}]"
            messages += _message(as_object(message, name), name)
        told["messages"] = messages
        if _is_begun(messages):
            told["continue_final_message"] = True
        if stops := _stops(said.get("stop_sequences", [])):
            told["stop"] = stops
        if tools := said.get("tools"):
            told["tools"] = [_tool(tool, f"tools[{n}]") for n, tool in enumerate(as_list(tools, "tools"))]
        told |= _tool_choice(said.get("tool_choice"))
        told |= _output_config(said)
        if "thinking" in said:
            told["chat_template_kwargs"] = _thinking(said["thinking"]) | (told.get("chat_template_kwargs") or {})
        return told

    def answer(self, answer: Body, body: Body) -> Body:
        choice, _ = first_choice(answer)
        usage = answer.get("usage") or {}
        cached = cached_tokens(usage)
        matched = choice.get("matched_stop")
        sequence = matched if isinstance(matched, str) and matched in (body.get("stop_sequences") or ()) else None
        ended = "end_turn" if sequence is None else "stop_sequence"
        return {
            "id": f"msg_{suffix(answer)}",
            "type": "message",
            "role": "assistant",
            "model": answer.get("model"),
            "content": _content(answer),
            "stop_reason": _STOPS.get(str(choice.get("finish_reason")), ended),
            "stop_sequence": sequence,
            "usage": {
                "input_tokens": max((usage.get("prompt_tokens") or 0) - cached, 0),
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": cached,
                "output_tokens": usage.get("completion_tokens") or 0,
            },
        }

    def facts(self, answer: Body) -> Facts | None:
        if answer.get("type") != "message":
            return None
        texts = [block["text"] for block in answer["content"] if block["type"] == "text"]
        usage = answer["usage"]
        cached = usage["cache_read_input_tokens"]
        return Facts(
            "".join(texts) if texts else None,
            answer["stop_reason"],
            usage["input_tokens"] + cached,
            cached,
            usage["output_tokens"],
        )


def failed(status: int, message: str) -> Body:
    """The error of a request. status: as HTTP has it; 0 where there is none."""
    kind = _ERRORS.get(status, "invalid_request_error" if _REFUSED <= status < _BROKEN else "api_error")
    return {"type": "error", "error": {"type": kind, "message": message}}


def _is_begun(messages: list[Body]) -> bool:
    """Whether the last message is the beginning of the answer, which is to go on from there."""
    last = messages[-1]
    begun = last["role"] == "assistant" and isinstance(last.get("content"), str) and last.keys() == {"role", "content"}
    return begun and len(messages) > 1


def _stops(given: Any) -> list[str]:
    """Without empty ones: nothing would come before them."""
    name = "stop_sequences"
    texts = [as_text(each, f"{name}[{place}]") for place, each in enumerate(as_list(given, name))]
    return [text for text in texts if text]


def _system(given: Any) -> str:
    if isinstance(given, str):
        return given
    if not isinstance(given, list):
        raise refuse_field("system", "it must be a string, or a list of blocks of text")
    texts = []
    for place, block in enumerate(given):
        name = f"system[{place}]"
        if as_object(block, name).get("type") != "text":
            raise refuse_field(name, "its blocks must be text")
        texts.append(as_text(block.get("text"), f"{name}.text"))
    return "\n".join(texts)


def _message(message: Body, name: str) -> list[Body]:
    """A message as the messages of a chat: results of tools are messages of their own there."""
    role, given = as_text(message.get("role"), f"{name}.role"), message.get("content")
    rest = without(message, "role", "content")
    if isinstance(given, str):
        return [{"role": role, "content": given, **rest}]
    results: list[Body] = []
    parts: list[Body] = []
    calls: list[Body] = []
    thoughts: list[str] = []
    for place, block in enumerate(as_list(given, f"{name}.content")):
        where = f"{name}.content[{place}]"
        kind = as_object(block, where).get("type")
        if kind == "tool_result":
            if parts and role == "user":
                results.append({"role": role, "content": one_text(parts), **rest})
                parts = []
            results.append(_result(block, where))
        elif kind == "tool_use":
            if role != "assistant":
                raise refuse_field(where, f"a call is in a message of the assistant, not of {role!r:.40}")
            arguments = json.dumps(as_object(block.get("input") or {}, f"{where}.input"), ensure_ascii=False)
            call = tool_call(str(block.get("id")), as_text(block.get("name"), f"{where}.name"), arguments)
            calls.append(call | without(block, "type", "id", "name", "input", *_MARKS))
        elif kind == "thinking":
            thoughts.append(as_text(block.get("thinking"), f"{where}.thinking"))
        else:
            parts.append(_part(block, where))
    if results and not parts:
        return results
    said: Body = {"role": role, "content": one_text(parts) if parts or not calls else None, **rest}
    if calls:
        said["tool_calls"] = calls
    if thoughts:
        said["reasoning_content"] = "\n".join(thoughts)
    return [*results, said]


def _part(block: Body, name: str) -> Body:
    kind = block.get("type")
    if kind == "text":
        text = as_text(block.get("text"), f"{name}.text")
        return {"type": "text", "text": text, **without(block, "type", "text", *_MARKS)}
    if kind == "image":
        url = _image(as_object(block.get("source"), f"{name}.source"), f"{name}.source")
        return {"type": "image_url", "image_url": {"url": url}, **without(block, "type", "source", *_MARKS)}
    if kind == "document":
        return {"type": "text", "text": _document(block, name)}
    if kind == "redacted_thinking":
        raise refuse_field(name, "nobody here can decrypt it; leave the block out")
    raise refuse_field(
        name, f"blocks of the type {kind!r:.40} are not read here; give text, images, tools' calls and results"
    )


def _image(source: Body, name: str) -> str:
    if source.get("type") == "base64":
        media = as_text(source.get("media_type"), f"{name}.media_type")
        return f"data:{media};base64,{as_text(source.get('data'), f'{name}.data')}"
    if source.get("type") == "url":
        return as_text(source.get("url"), f"{name}.url")
    raise refuse_field(name, "files of a server are not here; give the picture as base64 or by url")


def _document(block: Body, name: str) -> str:
    source = as_object(block.get("source"), f"{name}.source")
    if source.get("type") != "text":
        raise refuse_field(f"{name}.source", "of documents only plain text is read here (`type` text)")
    if as_object(block.get("citations") or {}, f"{name}.citations").get("enabled") is True:
        raise refuse_field(f"{name}.citations", "no model here cites; leave it out")
    heads = [f"{each}: {block[each]}" for each in ("title", "context") if block.get(each)]
    return "\n".join((*heads, as_text(source.get("data"), f"{name}.source.data")))


def _result(block: Body, name: str) -> Body:
    given = block.get("content")
    if given is None or isinstance(given, str):
        content: str | list[Body] = given or ""
    else:
        content = one_text(
            [
                _part(as_object(each, f"{name}.content[{place}]"), f"{name}.content[{place}]")
                for place, each in enumerate(as_list(given, f"{name}.content"))
            ]
        )
    said = {"role": "tool", "tool_call_id": str(block.get("tool_use_id") or ""), "content": content}
    return said | without(block, "type", "tool_use_id", "content", *_MARKS)


def _tool(given: Any, name: str) -> Body:
    tool = as_object(given, name)
    if tool.get("type") not in (None, "custom"):
        raise refuse_field(name, f"{tool['type']!r:.40} is run by a server; here a tool must have an `input_schema`")
    schema = as_object(tool.get("input_schema"), f"{name}.input_schema")
    function = {"name": as_text(tool.get("name"), f"{name}.name"), "parameters": schema}
    return {"type": "function", "function": function | without(tool, "type", "name", "input_schema", *_MARKS)}


def _tool_choice(given: Any) -> Body:
    if given is None:
        return {}
    choice = as_object(given, "tool_choice")
    parallel = {"parallel_tool_calls": False} if choice.get("disable_parallel_tool_use") is True else {}
    kind = choice.get("type")
    if kind == "tool":
        name = as_text(choice.get("name"), "tool_choice.name")
        return {"tool_choice": {"type": "function", "function": {"name": name}}, **parallel}
    if not isinstance(kind, str) or kind not in _CHOICES:
        raise refuse_field("tool_choice.type", "it must be auto, any, tool or none")
    return {"tool_choice": _CHOICES[kind], **parallel}


def _output_config(body: Body) -> Body:
    """`output_config`, and `output_format`, its older word."""
    config = as_object(body.get("output_config") or {}, "output_config")
    form = config.get("format") or body.get("output_format")
    told: Body = {} if config.get("effort") is None else {"reasoning_effort": config["effort"]}
    if rest := without(config, "format", "effort"):
        raise refuse_field(f"output_config.{next(iter(rest)):.40}", "it would have no effect")
    if form is None:
        return told
    schema = as_object(form, "output_format")
    if schema.get("type") != "json_schema":
        raise refuse_field("output_format.type", "it must be json_schema")
    named = {"name": "answer", "schema": as_object(schema.get("schema"), "output_format.schema")}
    return told | {"response_format": {"type": "json_schema", "json_schema": named}}


def _thinking(given: Any) -> Body:
    """What templates of models that think read: families differ in the word."""
    kind = as_object(given, "thinking").get("type")
    if kind not in ("enabled", "disabled", "adaptive"):
        raise refuse_field("thinking.type", "it must be enabled, disabled or adaptive")
    return {"thinking": kind != "disabled", "enable_thinking": kind != "disabled"}


def _content(answer: Body) -> list[Body]:
    _, message = first_choice(answer)
    blocks: list[Body] = []
    if thoughts := message.get("reasoning_content"):
        blocks.append({"type": "thinking", "thinking": thoughts, "signature": ""})
    if text := message.get("content"):
        blocks.append({"type": "text", "text": text})
    for call in message.get("tool_calls") or ():
        function = call.get("function") or {}
        blocks.append(
            {
                "type": "tool_use",
                "id": call.get("id"),
                "name": function.get("name"),
                "input": _arguments(function.get("arguments")),
            }
        )
    return blocks


def _arguments(given: Any) -> Any:
    """A call's arguments as an object. Text that is none stands in a field of its own: nothing is lost."""
    try:
        found = orjson.loads(given or "{}")
    except (orjson.JSONDecodeError, TypeError):
        return {"arguments": given}
    return found if isinstance(found, dict) else {"arguments": found}
