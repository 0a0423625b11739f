"""A request's failure in OpenAI's form."""

from __future__ import annotations

import orjson

from blendrun.engine.base import Result
from blendrun.errors import ErrorCode
from blendrun.text import cut


def within(result: Result, most: int) -> Result:
    """The result; a failure where its answer has more than `most` bytes."""
    if len(result.body) <= most:
        return result
    what = f"an answer of {len(result.body):,} bytes, which is more than is kept of one"
    return failure(result.row, 500, ErrorCode.ENGINE_ERROR, what)


def failure(row: int, status: int, code: ErrorCode, message: str) -> Result:
    """The result of a request that has no answer. What others said of it is kept in short."""
    # A lone surrogate (from a model's half-written escape) cannot be sent as UTF-8.
    message = cut(message).encode("utf-8", "replace").decode()
    error = {"message": message, "type": "invalid_request_error" if status < 500 else "server_error"}
    body = orjson.dumps({"error": {**error, "param": None, "code": str(code)}})
    return Result(row, status, body, error_code=str(code), error_message=message)
