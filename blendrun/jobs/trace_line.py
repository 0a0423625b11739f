"""One line of a trace: bytes in, a TraceLine or a LineError out."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import orjson

from blendrun.errors import ErrorCode, LineError

# A prompt and its output together stay within 32 bits; no context is near.
MAX_TOKENS = 2**30 - 1
MAX_ID_CHARACTERS = 512

_BLOCK_ID_RANGE = range(-(2**63), 2**64)


@dataclass(frozen=True, slots=True)
class TraceLine:
    """A line that passed validation.

    id: empty where the line has none. cluster: hash of service and client, 0 where it has neither.
    block_size: tokens of a block, 0 where the line has no blocks. blocks: their ids as 64-bit numbers; ids from 2^63 on
    wrap around, which keeps different ids different unless a trace mixes them with negative ones.
    """

    id: str
    prompt_tokens: int
    output_tokens: int
    block_size: int
    blocks: array[int]
    cluster: int


def is_trace(raw: bytes) -> bool:
    """Whether a line is of a trace rather than of a job: an object with token counts and without a request's body."""
    try:
        line = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return False
    return isinstance(line, dict) and "prompt_tokens" in line and "body" not in line


def parse_trace_line(raw: bytes) -> TraceLine:
    """Read one line (with or without its newline). Unknown fields are passed over.

    Raises LineError, with `custom_id` set to the line's id where it could be read.
    """
    try:
        line = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise LineError(ErrorCode.INVALID_JSON, f"not JSON: {error.msg}, at column {error.pos + 1}") from None
    if not isinstance(line, dict):
        raise refuse("a line of a trace must be a JSON object")
    name = _id(line.get("id"))
    try:
        prompt, output = _tokens(line, "prompt_tokens"), _tokens(line, "output_tokens")
        block_size, blocks = _blocks(line, prompt)
    except LineError as error:
        error.custom_id = name or None
        raise
    return TraceLine(name, prompt, output, block_size, blocks, _cluster(line))


def refuse(message: str, name: str = "") -> LineError:
    """The error of a line that is no request."""
    return LineError(ErrorCode.INVALID_REQUEST, message, name or None)


def _id(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID_CHARACTERS:
        raise refuse(f"`id` must be a number or a string of 1 to {MAX_ID_CHARACTERS} characters, or left out")
    return value


def _tokens(line: dict[str, Any], key: str) -> int:
    value = line.get(key)
    if value is None:
        raise refuse(f"`{key}` is missing")
    if type(value) is not int or not 0 <= value <= MAX_TOKENS:
        raise refuse(f"`{key}` must be a whole number from 0 to {MAX_TOKENS:,}")
    return value


def _blocks(line: dict[str, Any], prompt_tokens: int) -> tuple[int, array[int]]:
    """Block size and block ids; 0 and none where the line has no blocks."""
    ids, size = line.get("hash_ids"), line.get("block_size")
    if ids is None:
        return 0, array("q")
    if type(size) is not int or not 1 <= size <= MAX_TOKENS:
        raise refuse(f"`block_size` must be a whole number from 1 to {MAX_TOKENS:,} where there are `hash_ids`")
    if not isinstance(ids, list) or not all(type(each) is int and each in _BLOCK_ID_RANGE for each in ids):
        raise refuse("`hash_ids` must be an array of whole numbers of at most 64 bits")
    # Traces in the wild give ids to full blocks only: what is left of the prompt is its own.
    full, needed = prompt_tokens // size, -(-prompt_tokens // size)
    if len(ids) not in (full, needed):
        tokens = f"{prompt_tokens:,} prompt tokens in blocks of {size:,}"
        raise refuse(f"`hash_ids` has {len(ids):,} ids, but {tokens} need {needed:,}")
    try:
        return size, array("q", ids)
    except OverflowError:
        return size, array("q", [each - 2**64 if each >= 2**63 else each for each in ids])


def _cluster(line: dict[str, Any]) -> int:
    service, client = line.get("service"), line.get("client")
    if service is None and client is None:
        return 0
    digest = blake2b(orjson.dumps([service, client], option=orjson.OPT_SORT_KEYS), digest_size=8).digest()
    return int.from_bytes(digest, "little")
