"""What a server sent, as a result."""

from __future__ import annotations

import re

import orjson

from blendrun.endpoints.base import Endpoint
from blendrun.engine.base import Result
from blendrun.engine.failure import failure
from blendrun.errors import ErrorCode

# "context length", "context size", "context window": SGLang, vLLM, llama.cpp, OpenAI.
_TOO_LONG = re.compile(r"context[\w ]{0,12}(?:length|size|window)|exceed_context_size", re.IGNORECASE)
_NO_SCHEMA = "Failed to compile"
_LONGEST_MESSAGE = 2000


class NoAnswerError(Exception):
    """An exchange that should have brought an answer; the message says what came instead."""


def answer_of(row: int, endpoint: Endpoint, content: bytes) -> Result:
    """The result of a response with status 200. Raises NoAnswerError."""
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise NoAnswerError(f"an answer of {len(content)} bytes that is no JSON") from error
    try:
        reasons = endpoint.finish_reasons(body if isinstance(body, dict) else {})
    except ValueError as error:
        raise NoAnswerError(f"{error}: {_message(body)[:200]}") from error
    if "abort" in reasons:
        raise NoAnswerError("the server ended the request before its answer")
    return Result(row, 200, content, endpoint.usage(body), reasons)


def refusal_of(row: int, status: int, content: bytes) -> Result:
    """The result of a request that the server will not take."""
    message = message_of(content)
    if _TOO_LONG.search(message):
        code = ErrorCode.CONTEXT_LENGTH_EXCEEDED
    else:
        code = ErrorCode.SCHEMA_UNSUPPORTED if _NO_SCHEMA in message else ErrorCode.INVALID_REQUEST
    return failure(row, status, code, message or f"the server answers HTTP {status}")


def message_of(content: bytes) -> str:
    """What an error says: of OpenAI's form, of SGLang's, of FastAPI's, or the text as it stands."""
    try:
        return _message(orjson.loads(content))[:_LONGEST_MESSAGE]
    except orjson.JSONDecodeError:
        return content.decode("utf-8", "replace").strip()[:_LONGEST_MESSAGE]


def _message(body: object) -> str:
    if isinstance(body, dict):
        for name in ("error", "message", "detail"):
            if name in body:
                return _message(body[name])
    return body if isinstance(body, str) else orjson.dumps(body).decode()
