"""What a client is told: JSON, and errors in OpenAI's form."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from blendrun.errors import BlendrunError
from blendrun.service.asked import ApiError


def json_of(content: Mapping[str, Any], status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")


def _error(status: int, message: str, param: str | None = None, code: str | None = None) -> Response:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return json_of({"error": {"message": message, "type": kind, "param": param, "code": code}}, status)


async def _told_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError), "registered for it alone"
    return _error(error.status, str(error), error.param, error.code)


async def _late_error(_: Request, error: Exception) -> Response:
    """The rest of a body: the client has gone, or lets the server wait for too long."""
    late = _error(408, "the rest of the request has not come in time: send it again")
    late.headers["Connection"] = "close"
    return late


async def _store_error(_: Request, error: Exception) -> Response:
    """The store cannot be written, or read: where it lies is nothing for a client."""
    sys.stderr.write(f"blendrun: {error}\n")
    cause = error if isinstance(error, OSError) else error.__cause__
    reason = cause.strerror if isinstance(cause, OSError) else None
    return _error(503, f"the server's store cannot be used now: {reason or 'see what the server says'}")


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException), "registered for it alone"
    return _error(error.status_code, error.detail)


HANDLERS: dict[Any, Any] = {
    ApiError: _told_error,
    ClientDisconnect: _late_error,
    HTTPException: _http_error,
    BlendrunError: _store_error,
    OSError: _store_error,
}
