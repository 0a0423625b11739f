"""What SGLang's serving classes give back, as an object or as the failure of a line."""

from __future__ import annotations

from typing import Any

import orjson

from blendrun.endpoints.base import Endpoint
from blendrun.engine.base import Result
from blendrun.engine.failure import failure
from blendrun.engine.sglang_names import GRAMMAR_FAILURE, LENGTH_FAILURE, MEDIA_FAILURE
from blendrun.errors import ErrorCode
from blendrun.text import without_place


def answer_of(row: int, response: Any) -> dict[str, Any] | Result:
    """SGLang's response as an object; its JSON error response as a failure."""
    if hasattr(response, "status_code") and hasattr(response, "body"):
        content: dict[str, Any] = orjson.loads(response.body)
        if response.status_code == 200:
            return content
        message = without_place(str(content.get("message", "")))
        return failure(row, response.status_code, code_of(message, response.status_code), message)
    if isinstance(response, dict):
        return response
    answer: dict[str, Any] = orjson.loads(response.model_dump_json())
    return answer


def result_of(row: int, endpoint: Endpoint, answer: dict[str, Any]) -> Result:
    """The result of a line with this response."""
    reasons = endpoint.finish_reasons(answer)
    if "abort" in reasons:
        return failure(row, 500, ErrorCode.ENGINE_ERROR, "the engine aborted the request")
    return Result(row, 200, orjson.dumps(answer), endpoint.usage(answer), reasons)


def code_of(message: str, status: int = 400) -> ErrorCode:
    """What kind of error SGLang speaks of. status: HTTP's."""
    if GRAMMAR_FAILURE in message:
        return ErrorCode.SCHEMA_UNSUPPORTED
    if MEDIA_FAILURE in message:
        return ErrorCode.MEDIA_UNAVAILABLE
    if LENGTH_FAILURE in message:
        # Of prompts with media, whose tokens SGLang counts after our own check.
        return ErrorCode.CONTEXT_LENGTH_EXCEEDED
    return ErrorCode.INVALID_REQUEST if status < 500 else ErrorCode.ENGINE_ERROR
