"""Other ways to write the same request, put into one: what any engine is given.

Data frames write 8 as 8.0, clients keep `""` of a call without arguments, harnesses send a list of one prompt. None of
it changes what a line asks for, and its digest is that of the line as it is written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_WHOLE = (
    *("max_tokens", "max_completion_tokens", "n", "seed", "top_k", "min_tokens"),
    *("logprobs", "top_logprobs", "best_of", "prompt_logprobs", "dimensions", "top_n", "max_output_tokens"),
)
_IDS = ("stop_token_ids", "input_ids")
# What is larger cannot be written back as JSON.
_MOST = 2**63
_V1 = "/v1"
# As they end, and what else they are called; the longer of two that end alike first.
_NAMES = (
    "/chat/completions",
    "/completions",
    "/embeddings",
    "/score",
    "/rerank",
    "/classify",
    "/responses",
    "/messages",
)
_OTHER_NAMES = {"/v2/rerank": "/v1/rerank", "v2/rerank": "/v1/rerank"}
_DEPLOYMENTS = "/openai/deployments/"


def one_spelling(body: dict[str, Any]) -> dict[str, Any]:
    """`body` as OpenAI documents it; the object that was given is left as it is."""
    body = dict(body)
    for name in _WHOLE:
        if isinstance(value := body.get(name), float):
            body[name] = _whole(value)
    for name in _IDS:
        if isinstance(value := body.get(name), list):
            body[name] = [_whole(each) for each in value]
    for name, spell in _SPELLINGS.items():
        if name in body:
            body[name] = spell(body[name])
    if body.get("stream") is True:
        # The answer is a line of a file, whole.
        del body["stream"]
        body.pop("stream_options", None)
    if "best_of" in body and body["best_of"] == (body.get("n") or 1):
        # All of them are the best.
        del body["best_of"]
    if body.get("stop") in ("", []):
        del body["stop"]
    return body


def url_of(given: str) -> str:
    """The url of the registry that a line's `url` means, in the notation of Azure or as a whole address too.

    What means none comes back as it is.
    """
    path = given.strip()
    whole = path.startswith(("http://", "https://"))
    if whole:
        path = "/" + path.partition("://")[2].partition("/")[2]
    path = path.partition("?")[0].rstrip("/")
    if path.startswith(_DEPLOYMENTS):
        path = "/" + path.removeprefix(_DEPLOYMENTS).partition("/")[2]
    if path in _OTHER_NAMES:
        return _OTHER_NAMES[path]
    for name in _NAMES:
        # Gateways have a path of their own before it.
        if path in (name, name.removeprefix("/"), f"{_V1}{name}", f"v1{name}", f"/openai{_V1}{name}") or (
            whole and path.endswith(f"{_V1}{name}")
        ):
            return f"{_V1}{name}"
    return given


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < _MOST else value


def _prompt(value: Any) -> Any:
    """A list of one prompt, a text or token ids, is that prompt; what is deeper is none."""
    if not isinstance(value, list):
        return value
    if len(value) == 1 and (isinstance(value[0], str) or _flat(value[0])):
        return _ids(value[0])
    return _ids(value)


def _flat(value: Any) -> bool:
    return isinstance(value, list) and not any(isinstance(each, str | list) for each in value)


def _ids(value: Any) -> Any:
    """Token ids at any depth."""
    return [_ids(each) for each in value] if isinstance(value, list) else _whole(value)


def _documents(value: Any) -> Any:
    """Texts, which Cohere's and Jina's clients put into objects."""
    return [_document(each) for each in value] if isinstance(value, list) else value


def _document(value: Any) -> Any:
    return value["text"] if isinstance(value, dict) and value.keys() == {"text"} else value


def _stop(value: Any) -> Any:
    """Without empty strings: nothing would come before the first of them."""
    return [each for each in value if each != ""] if isinstance(value, list) else value


def _messages(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    return [_message(each) if isinstance(each, dict) and "tool_calls" in each else each for each in value]


def _message(message: dict[str, Any]) -> dict[str, Any]:
    calls = message["tool_calls"]
    return message | {"tool_calls": [_call(call) for call in calls]} if isinstance(calls, list) else message


def _call(call: Any) -> Any:
    """A call without arguments has an object without fields."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        return call
    given = function.get("arguments")
    empty = given is None or (isinstance(given, str) and not given.strip())
    return call | {"function": function | {"arguments": "{}"}} if empty else call


_SPELLINGS: dict[str, Callable[[Any], Any]] = {
    "prompt": _prompt,
    "input": _prompt,
    "stop": _stop,
    "messages": _messages,
    "query": _ids,
    "items": _ids,
    "label_token_ids": _ids,
    "documents": _documents,
}
