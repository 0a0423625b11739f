"""What a request asks and what an answer says, as text for people; never for a model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from blendrun.endpoints.base import Endpoint, Pair

# Numbers of a vector that are shown.
_NUMBERS = 4


def prompt_turns(endpoint: Endpoint, body: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Who says what in a valid body: (role, text) in order; the role is empty where there are no messages."""
    plain = endpoint.prompts(body)
    if plain:
        return [("", _plain(each)) for each in plain]
    return [(str(each.get("role", "")), _message(each)) for each in body.get("messages", ()) if isinstance(each, dict)]


def prompt_text(endpoint: Endpoint, body: Mapping[str, Any]) -> str:
    """All texts of the prompt, one after the other, in the order in which a model reads them."""
    return "\n".join(text for _, text in prompt_turns(endpoint, body))


def answer_text(line: Mapping[str, Any]) -> str:
    """What a line of the output, or of the errors file, says: its first answer, or its error. Empty where it is unlike
    any that is known.
    """
    if isinstance(error := line.get("error"), Mapping):
        return f"{error.get('code', 'error')}: {error.get('message', '')}"
    response, result = line.get("response"), line.get("result")
    if isinstance(response, Mapping):
        return _answer(response.get("body"))
    if isinstance(result, Mapping):
        return _answer(result.get("message") or result.get("error"))
    return ""


def _plain(prompt: Any) -> str:
    if isinstance(prompt, Pair):
        return f"{prompt.query}\n{prompt.document}"
    return prompt if isinstance(prompt, str) else f"[{len(prompt):,} token ids]"


def _message(message: Mapping[str, Any]) -> str:
    called = [each.get("function", each) for each in _maps(message.get("tool_calls"))]
    return "\n".join([*_texts(message.get("content")), *map(_compact, called)])


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    for part in _maps(content):
        text = part.get("text")
        yield text if isinstance(text, str) else f"[{part.get('type', 'part')}]"


def _answer(body: Any) -> str:
    if not isinstance(body, Mapping):
        return ""
    for choice in _maps(body.get("choices")):
        message = choice.get("message")
        return _message(message) if isinstance(message, Mapping) else str(choice.get("text", ""))
    if isinstance(body.get("content"), list):
        return "\n".join(_compact(part) if "input" in part else text for part, text in _parts(body["content"]))
    if isinstance(body.get("output"), list):
        return "\n".join(_item(item) for item in _maps(body["output"]))
    if isinstance(body.get("text"), str):
        return str(body["text"])
    for entry in _maps(body.get("data")):
        return _vector(entry.get("embedding", entry.get("probs", entry)))
    return _compact(body)


def _item(item: Mapping[str, Any]) -> str:
    """One of the output of OpenAI's Responses."""
    return "\n".join(_texts(item["content"])) if isinstance(item.get("content"), list) else _compact(item)


def _parts(content: Any) -> Iterator[tuple[Mapping[str, Any], str]]:
    for part in _maps(content):
        yield part, next(_texts([part]))


def _vector(value: Any) -> str:
    if not (isinstance(value, Sequence) and value and all(isinstance(each, int | float) for each in value[:_NUMBERS])):
        return _compact(value)
    return f"{', '.join(f'{each:.4g}' for each in value[:_NUMBERS])}, … ({len(value):,} numbers)"


def _maps(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, list):
        yield from (each for each in value if isinstance(each, Mapping))


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
