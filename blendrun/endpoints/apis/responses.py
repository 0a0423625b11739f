"""/v1/responses, OpenAI's Responses API, as far as one request can be answered on its own, without hosted tools."""

from __future__ import annotations

from typing import Any

from blendrun.endpoints.apis.base import (
    Api,
    Body,
    Facts,
    as_arguments,
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
from blendrun.endpoints.fields import must_be, refuse_field

_LOGPROBS = "message.output_text.logprobs"
# Of `include`, what asks for more of hosted tools, of which there are none, or of inputs, which are in the line.
_INCLUDED = frozenset(
    (
        "code_interpreter_call.outputs",
        "computer_call_output.output.image_url",
        "file_search_call.results",
        "message.input_image.image_url",
        "web_search_call.results",
        "web_search_call.action.sources",
    )
)
# Those of OpenAI's, and what some clients write in the place of a `function_call_output`.
_ROLES = ("user", "assistant", "system", "developer", "tool")
# Of an item or part of an earlier answer, what no template reads.
_OF_EARLIER = ("id", "status", "annotations", "logprobs", "phase")


class Responses(Api):
    """Messages, images, function tools and forms of answers; no state of a server, no tools that something runs."""

    url = "/v1/responses"

    def chat(self, body: Body) -> Body:
        said = {name: value for name, value in body.items() if value is not None}
        told = self.kept(said)
        told["messages"] = _messages(said)
        if "max_output_tokens" in said:
            told["max_completion_tokens"] = _bound(said["max_output_tokens"])
        told |= _form(said.get("text"))
        told |= _logprobs(said)
        if isinstance(tools := said.get("tools"), list) and tools:
            told["tools"] = [_tool(tool, f"tools[{place}]") for place, tool in enumerate(tools)]
        elif tools:
            raise refuse_field("tools", "it must be a list")
        if "tool_choice" in said:
            told["tool_choice"] = _tool_choice(said["tool_choice"])
        if "reasoning" in said:
            told["reasoning"] = without(as_object(said["reasoning"], "reasoning"), "summary", "generate_summary")
        return told

    def answer(self, answer: Body, body: Body) -> Body:
        choice, _ = first_choice(answer)
        reason = _CUT.get(str(choice.get("finish_reason")))
        usage = answer.get("usage") or {}
        prompt, output = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
        reasoned = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens")
        return {
            "id": f"resp_{suffix(answer)}",
            "object": "response",
            "created_at": answer.get("created") or 0,
            "status": "completed" if reason is None else "incomplete",
            "background": False,
            "error": None,
            "incomplete_details": None if reason is None else {"reason": reason},
            "model": answer.get("model"),
            "output": _output(answer),
            "parallel_tool_calls": body.get("parallel_tool_calls") is not False,
            "previous_response_id": None,
            "store": False,
            "text": body.get("text") or {"format": {"type": "text"}},
            "tool_choice": body.get("tool_choice") or "auto",
            "tools": body.get("tools") or [],
            "truncation": "disabled",
            "usage": {
                "input_tokens": prompt,
                "input_tokens_details": {"cached_tokens": cached_tokens(usage)},
                "output_tokens": output,
                "output_tokens_details": {"reasoning_tokens": reasoned or usage.get("reasoning_tokens") or 0},
                "total_tokens": prompt + output,
            },
            **{name: body.get(name) for name in _REPEATED},
        }

    def facts(self, answer: Body) -> Facts | None:
        if answer.get("object") != "response":
            return None
        messages = (item for item in answer["output"] if item["type"] == "message")
        texts = [part["text"] for message in messages for part in message["content"]]
        details, usage = answer["incomplete_details"], answer["usage"]
        return Facts(
            "".join(texts) if texts else None,
            answer["status"] if details is None else details["reason"],
            usage["input_tokens"],
            usage["input_tokens_details"]["cached_tokens"],
            usage["output_tokens"],
        )


_CUT = {"length": "max_output_tokens", "content_filter": "content_filter"}
_REPEATED = (
    *("instructions", "max_output_tokens", "max_tool_calls", "metadata", "reasoning"),
    *("temperature", "top_logprobs", "top_p", "user"),
)


def _messages(body: Body) -> list[Body]:
    messages: list[Body] = []
    # An empty one is none, to SGLang's server too: templates may write something of their own in its place.
    if told := as_text(body.get("instructions", ""), "instructions"):
        messages.append({"role": "system", "content": told})
    given = body.get("input")
    if isinstance(given, str):
        return [*messages, {"role": "user", "content": given}]
    if not isinstance(given, list) or not given:
        raise refuse_field("input", "it must be a string, or a list of at least one item")
    if not (talk := _Talk().messages(given)):
        raise refuse_field("input", "it has nothing to answer: reasoning without text, and no message")
    return messages + talk


class _Talk:
    """The items of `input` as messages: calls and reasoning belong to the assistant's message around them."""

    def __init__(self) -> None:
        self.found: list[Body] = []
        self.reasoning: list[str] = []

    def messages(self, items: list[Any]) -> list[Body]:
        for place, item in enumerate(items):
            name = f"input[{place}]"
            self._take(as_object(item, name), name)
        # Reasoning that nothing follows is of an answer that was cut; it is said all the same.
        if self.reasoning:
            self._assistant()
        return self.found

    def _take(self, item: Body, name: str) -> None:
        kind = item.get("type") or "message"
        if kind == "message":
            self._message(item, name)
        elif kind == "function_call":
            self._assistant().setdefault("tool_calls", []).append(
                tool_call(
                    str(item.get("call_id") or item.get("id") or ""),
                    as_text(item.get("name"), f"{name}.name"),
                    as_arguments(item.get("arguments") or "{}", f"{name}.arguments"),
                )
            )
        elif kind == "function_call_output":
            content = _content(item.get("output"), f"{name}.output")
            self.found.append({"role": "tool", "tool_call_id": str(item.get("call_id") or ""), "content": content})
        elif kind == "reasoning":
            self.reasoning += _reasoning(item, name)
        elif kind == "item_reference":
            raise refuse_field(name, "each line stands alone: write the item itself, not a reference to it")
        else:
            raise refuse_field(name, f"items of the type {kind!r:.40} are of tools that a server runs; none runs here")

    def _message(self, item: Body, name: str) -> None:
        role = as_text(item.get("role"), f"{name}.role")
        if role not in _ROLES:
            raise refuse_field(f"{name}.role", f"it must be one of {', '.join(_ROLES)}, not {role!r:.40}")
        content = _content(item.get("content"), f"{name}.content")
        if role == "assistant":
            message = self._assistant(new=True)
            message["content"] = content
        else:
            message = {"role": role, "content": content}
            self.found.append(message)
        message |= without(item, "type", "role", "content", *_OF_EARLIER)

    def _assistant(self, *, new: bool = False) -> Body:
        """The assistant's message that is being put together, or a new one."""
        last = self.found[-1] if self.found else {}
        if new or self.reasoning or last.get("role") != "assistant":
            last = {"role": "assistant", "content": None}
            self.found.append(last)
        if self.reasoning:
            last["reasoning_content"] = "\n".join(self.reasoning)
            self.reasoning = []
        return last


def _content(given: Any, name: str) -> str | list[Body]:
    if isinstance(given, str):
        return given
    parts = [_part(part, f"{name}[{place}]") for place, part in enumerate(as_list(given, name))]
    return one_text(parts)


def _part(given: Any, name: str) -> Body:
    part = as_object(given, name)
    kind = part.get("type")
    if kind in ("input_text", "output_text", "text"):
        return {
            "type": "text",
            "text": as_text(part.get("text"), f"{name}.text"),
            **without(part, "type", "text", *_OF_EARLIER),
        }
    if kind == "refusal":
        return {"type": "text", "text": as_text(part.get("refusal"), f"{name}.refusal")}
    if kind == "input_image":
        if part.get("file_id") is not None:
            raise refuse_field(
                f"{name}.file_id", "files of a server are not here; give `image_url`, as a data: URL say"
            )
        url = {"url": as_text(part.get("image_url"), f"{name}.image_url")}
        detail = {} if part.get("detail") is None else {"detail": part["detail"]}
        return {"type": "image_url", "image_url": url | detail, **without(part, "type", "image_url", "detail")}
    if kind == "input_audio":
        return {"type": "input_audio", "input_audio": part.get("input_audio"), **without(part, "type", "input_audio")}
    raise refuse_field(name, f"parts of the type {kind!r:.40} are not read here; give text, images or audio")


def _reasoning(item: Body, name: str) -> list[str]:
    """The text of a reasoning item: what it says itself, else its summary."""
    if item.get("encrypted_content") is not None and not item.get("content"):
        raise refuse_field(f"{name}.encrypted_content", "nobody here can decrypt it; leave the item out")
    parts = item.get("content") or item.get("summary") or []
    return [as_text(as_object(part, name).get("text"), f"{name}.text") for part in as_list(parts, name)]


def _bound(tokens: Any) -> int:
    """`max_output_tokens`, by its own name."""
    if type(tokens) is not int or tokens < 1:
        raise must_be("max_output_tokens", "a whole number of 1 or more", tokens)
    return tokens


def _form(text: Any) -> Body:
    """`text.format` as `response_format`."""
    if text is None:
        return {}
    told = without(as_object(text, "text"), "format")
    if told.pop("verbosity", "medium") != "medium":
        raise refuse_field("text.verbosity", "no model here has such a setting; ask for it in the instructions")
    if told:
        raise refuse_field(f"text.{next(iter(told)):.40}", "it would have no effect")
    form = text.get("format")
    if form is None:
        return {}
    kind = as_object(form, "text.format").get("type")
    if kind == "text":
        return {}
    if kind == "json_object":
        return {"response_format": {"type": "json_object"}}
    if kind == "json_schema":
        as_object(form.get("schema"), "text.format.schema")
        return {"response_format": {"type": "json_schema", "json_schema": without(form, "type")}}
    raise refuse_field("text.format.type", f"{kind!r:.40} is none of text, json_object and json_schema")


def _logprobs(body: Body) -> Body:
    given = as_list(body.get("include") or [], "include")
    wanted = [as_text(name, f"include[{place}]") for place, name in enumerate(given)]
    for name in wanted:
        if name != _LOGPROBS and name not in _INCLUDED:
            raise refuse_field("include", f"{name!r:.60} is not to be had here")
    if _LOGPROBS not in wanted:
        return {}
    return {"logprobs": True, "top_logprobs": body.get("top_logprobs") or 0}


def _tool(given: Any, name: str) -> Body:
    tool = as_object(given, name)
    if tool.get("type") != "function":
        kind = tool.get("type")
        raise refuse_field(name, f"tools of the type {kind!r:.40} are run by a server; here a tool must be a function")
    as_text(tool.get("name"), f"{name}.name")
    return {"type": "function", "function": without(tool, "type")}


def _tool_choice(given: Any) -> Any:
    if isinstance(given, str):
        return given
    choice = as_object(given, "tool_choice")
    if choice.get("type") == "function":
        name = as_text(choice.get("name"), "tool_choice.name")
        return {"type": "function", "function": {"name": name}}
    raise refuse_field("tool_choice", "it must be auto, required, none, or a function's name with its type")


def _output(answer: Body) -> list[Body]:
    """The items of an answer, in the order in which a model makes them."""
    choice, message = first_choice(answer)
    end = suffix(answer)
    items: list[Body] = []
    cut = choice.get("finish_reason") == "length"
    if reasoning := message.get("reasoning_content"):
        text = {"type": "reasoning_text", "text": reasoning}
        items.append({"id": f"rs_{end}", "type": "reasoning", "summary": [], "content": [text], "status": "completed"})
    calls = message.get("tool_calls") or []
    content = message.get("content")
    if content or not (calls or reasoning):
        said: Body = {"type": "output_text", "text": content or "", "annotations": []}
        if (logprobs := choice.get("logprobs")) is not None:
            said["logprobs"] = logprobs.get("content") or []
        status = "incomplete" if cut else "completed"
        items.append({"id": f"msg_{end}", "type": "message", "role": "assistant", "status": status, "content": [said]})
    for place, call in enumerate(calls):
        function = call.get("function") or {}
        items.append(
            {
                "id": f"fc_{end}_{place}",
                "type": "function_call",
                "call_id": call.get("id"),
                "name": function.get("name"),
                "arguments": function.get("arguments") or "{}",
                "status": "completed",
            }
        )
    return items
