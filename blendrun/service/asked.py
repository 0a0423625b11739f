"""What a client asks for, read from its request; what cannot be is refused as OpenAI refuses it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.types import Message

from blendrun.backends.deadline import parse_duration
from blendrun.errors import UsageError
from blendrun.text import cut

# Of a body that is no upload, and room for the other fields of one that is.
FORM_BYTES = 1 << 20
_MOST_METADATA = 16
# Characters of a client's own words in an error.
_SHOWN = 80
# Fields of a form: as OpenAI's clients write an object into one.
UPLOADED = ("file", "purpose", "expires_after[anchor]", "expires_after[seconds]")
# How long a file may be kept that is to be deleted by itself: an hour to thirty days, as at OpenAI's.
_EXPIRY, _SHORTEST_S, _LONGEST_S = ("anchor", "seconds"), 3600, 30 * 86_400
_WINDOW = re.compile(r"[1-9]\d{0,5}[smhd]")


class ApiError(Exception):
    """What a client is told, as OpenAI tells it."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code


def parameters(given: Iterable[str], known: Iterable[str], of: str = "") -> None:
    """Refuse one that nobody heeds, and one that is there twice. of: what they belong to, "x.". Raises ApiError."""
    seen = set[str]()
    for name in given:
        shown = of + cut(name, _SHOWN)
        if name not in known:
            raise ApiError(400, f"Unknown parameter: '{shown}'.", shown, "unknown_parameter")
        if name in seen:
            raise ApiError(400, f"Duplicate parameter: '{shown}'.", shown, "duplicate_parameter")
        seen.add(name)


def missing(name: str) -> ApiError:
    return ApiError(400, f"Missing required parameter: '{name}'.", name, "missing_required_parameter")


def text_of(given: Mapping[str, Any], name: str) -> str:
    """A text that has to be there. Raises ApiError."""
    found = given.get(name)
    if found is None:
        raise missing(name)
    if not isinstance(found, str):
        raise ApiError(400, f"`{name}` must be a text", name, "invalid_type")
    return found


def window_seconds(given: Any) -> int:
    """Seconds that a batch has. Raises ApiError."""
    try:
        if not isinstance(given, str) or not _WINDOW.fullmatch(given):
            raise UsageError("")
        return max(int(parse_duration(given, "completion_window")), 1)
    except UsageError:
        raise ApiError(400, "`completion_window` must be such as 24h, 90m or 7d", "completion_window") from None


def kept_seconds(given: Any, param: str) -> int | None:
    """Seconds that a file is kept; None where nothing was said. Raises ApiError."""
    if given is None:
        return None
    words: dict[str, Any] = given if isinstance(given, dict) else {}
    parameters(words, _EXPIRY, f"{param}.")
    anchor, seconds = (words.get(name) for name in _EXPIRY)
    if anchor != "created_at" or type(seconds) is not int or not _SHORTEST_S <= seconds <= _LONGEST_S:
        what = f'{{"anchor": "created_at", "seconds": N}}, N from {_SHORTEST_S:,} to {_LONGEST_S:,}'
        raise ApiError(400, f"`{param}` must be {what}", param)
    return seconds


def metadata_of(given: Any) -> dict[str, str] | None:
    """Raises ApiError."""
    if given is None:
        return None
    good = (
        isinstance(given, dict)
        and len(given) <= _MOST_METADATA
        and all(len(name) <= 64 and isinstance(value, str) and len(value) <= 512 for name, value in given.items())
    )
    if not good:
        raise ApiError(400, "`metadata` must be at most 16 pairs of texts, of 64 and 512 characters", "metadata")
    found: dict[str, str] = given
    return found


def form_kept_seconds(form: FormData) -> int | None:
    """The same of an upload, where each field is a text."""
    given: dict[str, Any] = {
        name: form[f"expires_after[{name}]"] for name in _EXPIRY if f"expires_after[{name}]" in form
    }
    seconds = given.get("seconds")
    if isinstance(seconds, str) and seconds.isascii() and seconds.isdecimal() and len(seconds) < 9:
        given["seconds"] = int(seconds)
    return kept_seconds(given or None, "expires_after")


async def object_of(request: Request) -> dict[str, Any]:
    """The JSON object of a request's body. Raises ApiError."""
    content = await bounded(request, FORM_BYTES).body()
    try:
        found = orjson.loads(content)
        # Of two values under one name the parser above takes the last, and a client meant one of them.
        json.loads(content, object_pairs_hook=_once)
    except orjson.JSONDecodeError as error:
        raise ApiError(400, f"the body is no JSON: {error}") from error
    except RecursionError as error:
        raise ApiError(400, "the body is nested too deeply") from error
    if not isinstance(found, dict):
        raise ApiError(400, "the body must be a JSON object")
    return found


def _once(pairs: list[tuple[str, Any]]) -> None:
    """Refuse an object that has a name twice, at any depth. Raises ApiError."""
    names = [name for name, _ in pairs]
    parameters(names, dict.fromkeys(names))


def bounded(request: Request, most: int) -> Request:
    """The same, whose body raises ApiError as it is read once it has more bytes than it may."""
    left = most

    async def receive() -> Message:
        nonlocal left
        message = await request.receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise too_large(most)
        return message

    return Request(request.scope, receive)


def too_large(most: int) -> ApiError:
    return ApiError(413, f"the upload is larger than {most:,} bytes")
