"""What a server sent, as a result. Its bytes, numbers, shapes and words are a stranger's."""

from __future__ import annotations

import re
from typing import Any

import orjson

from blendrun.endpoints.base import Endpoint, Usage
from blendrun.endpoints.json_size import too_many_values
from blendrun.engine.base import Result
from blendrun.engine.failure import failure
from blendrun.errors import ErrorCode
from blendrun.text import LONGEST_MESSAGE, cut, printable, without_place

# "context length", "context size", "context window": SGLang, vLLM, llama.cpp, OpenAI.
_TOO_LONG = re.compile(r"context[\w ]{0,12}(?:length|size|window)|exceed_context_size", re.IGNORECASE)
_NO_SCHEMA = "Failed to compile"
# Line ends and tabs stand between JSON's values only: within a string they are written out. So a blank says the same.
_ONE_LINE = bytes.maketrans(b"\n\r\t", b"   ")
# Some readers take these for line ends. Within JSON they stand in strings only.
_LINE_ENDS = {"\x85": b"\\u0085", "\u2028": b"\\u2028", "\u2029": b"\\u2029"}
# Levels of an answer's JSON: with those of its line below what JSON readers take.
_DEEPEST, _READERS_DEEPEST = 254, 1024
_LONGEST_REASON = 40


class NoAnswerError(Exception):
    """An exchange that should have brought an answer; the message says what came instead.

    again: whether another try may bring one. blamed: whether the server is to blame where one comes after another.
    """

    def __init__(self, message: str, *, again: bool = True, blamed: bool = True) -> None:
        super().__init__(printable(cut(message)))
        self.again, self.blamed = again, blamed


def answer_of(row: int, endpoint: Endpoint, content: bytes, choices: int = 1, most: int = 64 << 20) -> Result:
    """The result of a response with status 200. choices: asked for. most: bytes of an answer. Raises NoAnswerError."""
    body = _read(content, most)
    if (formed := endpoint.in_one_form(body)) is not body:
        body, content = formed, orjson.dumps(formed)
    if not isinstance(body, dict):
        raise NoAnswerError(f"an answer that is no JSON object: {_message(body)[:200]}")
    try:
        reasons = endpoint.finish_reasons(body)
    except ValueError as error:
        raise NoAnswerError(f"{error}: {_message(body)[:200]}") from error
    if "abort" in reasons:
        raise NoAnswerError("the server ended the request before its answer")
    _check_shape(endpoint, body, choices)
    return Result(row, 200, one_line(content), _bounded(endpoint.usage(body)), tuple(map(_reason, reasons)))


def one_line(content: bytes) -> bytes:
    """JSON as one line, all its values as they were."""
    text = content.translate(_ONE_LINE).strip()
    for end, written in _LINE_ENDS.items():
        text = text.replace(end.encode(), written)
    return text


def _read(content: bytes, most: int) -> Any:
    """Raises NoAnswerError for what is no JSON, or none that everybody can read."""
    if too_many_values(content, most):
        raise NoAnswerError(
            f"an answer of {len(content):,} bytes with too many values to read", again=False, blamed=False
        )
    try:
        body = orjson.loads(content)
        if content.count(b"[") + content.count(b"{") > _DEEPEST:
            around = _READERS_DEEPEST - _DEEPEST
            orjson.loads(b"[" * around + content.strip() + b"]" * around)
    except orjson.JSONDecodeError as error:
        if error.msg.startswith("depth limit"):
            what = f"an answer with more than {_DEEPEST} levels"
            raise NoAnswerError(what, again=False, blamed=False) from error
        raise NoAnswerError(f"an answer of {len(content):,} bytes that is no JSON ({error.msg})") from error
    return body


def _check_shape(endpoint: Endpoint, body: dict[str, Any], choices: int) -> None:
    """Raises NoAnswerError for an answer to something else."""
    if endpoint.answer_content is None:
        return
    name, kinds = endpoint.answer_content
    answers = endpoint.answers(body)
    if len(answers) != choices:
        what = f"an answer with {len(answers)} of the {choices} {endpoint.answer_field} asked for"
        raise NoAnswerError(what, again=False, blamed=False)
    for place, answer in enumerate(answers):
        if not isinstance(answer.get(name), kinds):
            what = cut(str(body.get("object")), _LONGEST_REASON)
            each = f"{endpoint.answer_field.removesuffix('s')} {place}"
            raise NoAnswerError(f"an answer without `{name}` in {each} (its object is {what!r})", blamed=False)
    if str(body.get("object")).endswith(".chunk"):
        raise NoAnswerError("a piece of a streamed answer, which was not asked for", blamed=False)


def _bounded(usage: Usage) -> Usage:
    """Of a prompt no more tokens can be cached than it has."""
    return usage if usage.cached <= usage.prompt else Usage(usage.prompt, usage.prompt, usage.output)


def _reason(text: str) -> str:
    return printable(cut(text, _LONGEST_REASON))


def refusal_of(row: int, status: int, content: bytes) -> Result:
    """The result of a request that the server will not take."""
    message = without_place(message_of(content))
    if _TOO_LONG.search(message):
        code = ErrorCode.CONTEXT_LENGTH_EXCEEDED
    else:
        code = ErrorCode.SCHEMA_UNSUPPORTED if _NO_SCHEMA in message else ErrorCode.INVALID_REQUEST
    return failure(row, status, code, message or f"the server answers HTTP {status}")


def message_of(content: bytes) -> str:
    """What an error says: of OpenAI's form, of SGLang's, of FastAPI's, or the text as it stands."""
    try:
        return _message(orjson.loads(content))
    except orjson.JSONDecodeError:
        return _shown(content.decode("utf-8", "replace").strip())


def _message(body: object) -> str:
    for _ in range(_DEEPEST):
        names = [name for name in ("error", "message", "detail") if isinstance(body, dict) and name in body]
        if not names:
            break
        assert isinstance(body, dict)
        body = body[names[0]]
    return _shown(body if isinstance(body, str) else _json(body))


def _json(body: object) -> str:
    try:
        return orjson.dumps(body).decode()
    except TypeError:
        # Nested deeper than can be written.
        return type(body).__name__


def _shown(text: str) -> str:
    return cut(printable(text[:LONGEST_MESSAGE], lines=True))
