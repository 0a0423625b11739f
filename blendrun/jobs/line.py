"""One request line: bytes in, a RequestLine or a LineError out, and nothing else.

Everything here is a pure function of the bytes, so no error need be kept: reading the line again gives it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import orjson

from blendrun.endpoints.apis.base import Spoken
from blendrun.endpoints.apis.registry import ANTHROPIC, APIS, URLS
from blendrun.endpoints.base import Endpoint
from blendrun.endpoints.json_size import too_many_values
from blendrun.endpoints.registry import ENDPOINTS
from blendrun.endpoints.rules import Rules
from blendrun.endpoints.spellings import one_spelling, url_of
from blendrun.errors import ErrorCode, LineError
from blendrun.jobs.kinds import why_not_json
from blendrun.jobs.tables.base import BAD_ROW

MAX_LINE_BYTES = 64 * 1024 * 1024
# What a line's values may take is bounded by its own longest length, or by this where that is less.
_VALUES_BYTES = 16 * 1024 * 1024
MAX_CUSTOM_ID_CHARACTERS = 512
# A Job keeps `n` in 16 bits; no engine decodes this many answers to one prompt at once.
MAX_CHOICES = 32_767
DIGEST_BYTES = 16
_EXPLAINED_BYTES = 1 << 16

# What messages of lines that cannot be read end with.
GOOD_LINE = (
    '{"custom_id": "1", "url": "/v1/chat/completions", "body": {"messages": [{"role": "user", "content": "Hi"}]}}'
)
_SUCH_AS = f"; a good line: {GOOD_LINE}"
_CHAT = "/v1/chat/completions"
_NOTHING_ALLOWED = Rules()


@dataclass(frozen=True, slots=True)
class RequestLine:
    """A line that passed validation.

    endpoint: the registry's object for the line's url.
    body: the request in words that the engine knows (`Rules.admit`); nothing is filled in.
    extra: unknown top-level fields such as `metadata`; they decide nothing.
    content: 16 bytes, `content_digest` of the three fields that make the request what it is, as they are written.
    passed_over: fields of the body that have no effect, and that the run tells of.
    spoken: how it was written, where that was in another API's words; None where `body` is in the endpoint's own.
    given, canonical: the body as it is written, and its `canonical_body`.
    """

    custom_id: str
    endpoint: Endpoint
    body: dict[str, Any]
    extra: dict[str, Any]
    content: bytes
    passed_over: tuple[str, ...] = ()
    spoken: Spoken | None = None
    given: Mapping[str, Any] = field(default_factory=dict)
    canonical: bytes = b""


def parse_line(
    raw: bytes,
    default_url: str | None = None,
    max_line_bytes: int = MAX_LINE_BYTES,
    rules: Rules = _NOTHING_ALLOWED,
) -> RequestLine:
    """Read one line (with or without its newline).

    default_url: what a line without `url` means (Together's and Fireworks' lines have none).
    rules: what the run lets its lines do.

    Raises LineError, with `custom_id` set whenever it could be read, and `content` where only `rules` refuse it.
    """
    if len(raw) > max_line_bytes:
        raise line_too_long(len(raw), max_line_bytes)
    if too_many_values(raw, max(max_line_bytes, _VALUES_BYTES)):
        raise _refuse(f"the line has {len(raw):,} bytes with too many values to read")
    try:
        line = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise _not_json(raw, error) from None
    if not isinstance(line, dict):
        raise _no_request(f"a line must be a JSON object, not {_kind(line)}")
    custom_id = line.pop("custom_id", None)
    results = "params" in line and "body" not in line
    try:
        _check_custom_id(custom_id)
        if isinstance(why := line.get(BAD_ROW), str) and "body" not in line:
            raise _refuse(why)
        url, body = _take_request(line, default_url)
        # Before the validators: their messages print values, and only shallow ones can be printed.
        canonical = canonical_body(body)
        content = _digest(custom_id.encode(), url.encode(), canonical)
        streamed = body.get("stream") is True
        given, body = body, one_spelling(body)
        passed_over: tuple[str, ...] = ()
        spoken = None
        if url in APIS:
            spoken = Spoken(APIS[url], given, results)
            passed_over, body = _translated(spoken, rules, body, content)
        endpoint = ENDPOINTS[url if spoken is None else _CHAT]
        endpoint.validate(body)
        _check_choices(endpoint, body)
        body, more = _admit(rules, endpoint, body, content)
    except LineError as error:
        error.custom_id = custom_id if isinstance(custom_id, str) else None
        error.results = results
        raise
    noted = dict.fromkeys((*(("stream",) if streamed else ()), *passed_over, *more))
    return RequestLine(custom_id, endpoint, body, line, content, tuple(noted), spoken, given, canonical)


def canonical_body(body: dict[str, Any]) -> bytes:
    """The body as JSON with sorted keys and no spaces: equal for every way to write the same request.

    Raises LineError where the body is nested deeper than can be written back (254 levels).
    """
    try:
        return orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError as error:
        raise _refuse(f"`body` cannot be written back as JSON (254 levels of nesting at most): {error}") from None


def content_digest(custom_id: str, url: str, body: dict[str, Any]) -> bytes:
    """16 bytes that name the request: equal digests, equal custom_id, url and canonical body."""
    return _digest(custom_id.encode(), url.encode(), canonical_body(body))


def salted_key(content: bytes, salt: bytes) -> bytes:
    """16 bytes that name a piece of work. salt: hash of what else decides the answer, such as the model."""
    return _digest(salt, content)


def request_key(custom_id: str, url: str, body: dict[str, Any], salt: bytes) -> bytes:
    """`salted_key` of the `content_digest`: the identity of finished work, on any machine, in any order."""
    return salted_key(content_digest(custom_id, url, body), salt)


def line_too_long(length: int, max_line_bytes: int) -> LineError:
    """The error of a line of `length` bytes, which nobody needs to load to make."""
    return _refuse(f"the line has {length:,} bytes; at most {max_line_bytes:,} are read")


def raw_digest(pieces: Iterable[bytes]) -> bytes:
    """16 bytes of a line that is no request, given in any pieces. Never equal to a content digest."""
    digest = blake2b(digest_size=DIGEST_BYTES, person=b"refused line")
    for piece in pieces:
        digest.update(piece)
    return digest.digest()


def _digest(*parts: bytes) -> bytes:
    """16 bytes of several texts."""
    # The lengths keep the parts apart: no two different requests hash the same bytes.
    lengths = struct.pack(f"<{len(parts)}q", *map(len, parts))
    return blake2b(b"".join((lengths, *parts)), digest_size=DIGEST_BYTES).digest()


def _not_json(raw: bytes, error: orjson.JSONDecodeError) -> LineError:
    try:
        raw.decode()
    except UnicodeDecodeError as bad:
        message = f"not UTF-8: byte 0x{raw[bad.start]:02x} at byte offset {bad.start} of the line"
    else:
        message = f"not JSON: {error.msg.partition(': line ')[0]}, at column {error.pos + 1}"
        # Long lines are not looked at again: what is wrong with them is the same.
        if len(raw) <= _EXPLAINED_BYTES and (why := why_not_json(raw.decode())):
            message += f"; {why}"
    return LineError(ErrorCode.INVALID_JSON, f"{message}{_SUCH_AS}")


def _check_custom_id(custom_id: object) -> None:
    if custom_id is None:
        raise _no_request("`custom_id` is missing; answers are matched by it")
    if not isinstance(custom_id, str):
        raise _no_request(f"`custom_id` must be a string, not {_kind(custom_id)}")
    if not 0 < len(custom_id) <= MAX_CUSTOM_ID_CHARACTERS:
        raise _refuse(f"`custom_id` must have 1 to {MAX_CUSTOM_ID_CHARACTERS} characters, not {len(custom_id):,}")


def _take_request(line: dict[str, Any], default_url: str | None) -> tuple[str, dict[str, Any]]:
    """Take method, url and body out of `line`; what stays in it is extra. The url is one of a registry."""
    method, url, body = line.pop("method", None), line.pop("url", None), line.pop("body", None)
    if body is None and "params" in line:
        # A line of Anthropic's batches.
        body, url = line.pop("params"), ANTHROPIC.url if url is None else url
    # Clients of OpenAI write it in either case.
    if method is not None and not (isinstance(method, str) and method.upper() == "POST"):
        raise _no_request('`method` must be "POST" (or left out)')
    if url is None:
        url = default_url
    known = url_of(url) if isinstance(url, str) else ""
    if known not in URLS:
        given = (
            "is missing"
            if url is None
            else f"{url[:80]!r} is not served"
            if isinstance(url, str)
            else "is not a string"
        )
        # The list shows what a line looks like; a whole line behind it would be cut.
        raise _refuse(f"`url` {given}; these work: {', '.join(URLS)}")
    if not isinstance(body, dict):
        raise _no_request("`body` is missing" if body is None else f"`body` must be an object, not {_kind(body)}")
    return known, body


def _translated(
    spoken: Spoken, rules: Rules, body: dict[str, Any], content: bytes
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The fields that are passed over, and the body as a chat."""
    try:
        noted = rules.heed(spoken.api.url, body)
    except LineError as error:
        error.content = content
        raise
    return noted, spoken.api.chat(body)


def _check_choices(endpoint: Endpoint, body: dict[str, Any]) -> None:
    choices = endpoint.demand(body).choices
    if choices > MAX_CHOICES:
        each = body.get("n") or 1
        prompts = f" for each of {choices // each:,} prompts" if choices > each else ""
        raise _refuse(f"`n` must be at most {MAX_CHOICES:,}, not {each:,}{prompts}")


def _admit(
    rules: Rules, endpoint: Endpoint, body: dict[str, Any], content: bytes
) -> tuple[dict[str, Any], tuple[str, ...]]:
    try:
        return rules.admit(endpoint.url, body)
    except LineError as error:
        error.content = content
        raise


def _kind(value: object) -> str:
    """JSON's name for a value's type: users know these, not Python's."""
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "an array"}
    return names.get(type(value), "an object")


def _no_request(message: str) -> LineError:
    return _refuse(f"{message}{_SUCH_AS}")


def _refuse(message: str) -> LineError:
    return LineError(ErrorCode.INVALID_REQUEST, message)
