"""What a request tells the planner besides its prompt: whose cache it may share, and whose answers are like its own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any, NamedTuple

import orjson

from blendrun.endpoints.adapters import adapter_of
from blendrun.jobs.line import RequestLine
from blendrun.tokens.chat import Media

# Body fields that constrain the answer to a form.
_FORM_FIELDS = ("response_format", "json_schema", "regex", "ebnf")
# Body fields that end an answer before its bound.
_STOP_FIELDS = ("stop", "stop_token_ids", "stop_regex")
_TAG_NAMES = ("task", "job")


class Traits(NamedTuple):
    """Hashes are u64; `root` and `schema` are 0 where there is nothing to tell apart.

    root: of adapter, media and cache salt.
    cluster: of endpoint, model and adapter, asked bound, schema, whether there are tools, and metadata "task" or "job".
    schema: of the answer's form (JSON schema, regex or grammar).
    reference: metadata.reference_output_tokens, -1 without.
    fixed: whether nothing but the bound can end the answer. logprobs: whether it is to come with log probabilities.
    """

    root: int
    cluster: int
    schema: int
    reference: int
    fixed: bool
    logprobs: bool


def traits(request: RequestLine, bound: int, media: Sequence[Media], adapters: tuple[str, ...] | None = None) -> Traits:
    """bound: output tokens asked for, 0 for open (the Job's column). adapters: those declared, None if nobody knows."""
    body = request.body
    metadata = request.extra.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    schema = _schema(body)
    adapter = adapter_of(body, adapters) or ""
    model = _text(body.get("model"))
    # Of two fields that may name it, the other one's name comes behind.
    named = model if not adapter or model.endswith(adapter) else f"{model}:{adapter}"
    kind = (request.endpoint.url, named, bound, schema, bool(body.get("tools")))
    cluster = _cluster(*kind, _tag(metadata, body))
    fixed = _fixed(body, bound, schema)
    # 0 is a number of tokens beside the one that is there.
    asked = (body.get(name) is not None and body[name] is not False for name in ("logprobs", "return_logprob"))
    logprobs = request.endpoint.reads_logprobs or any(asked)
    return Traits(_root(adapter, body, media), cluster, schema, _reference(metadata), fixed, logprobs)


def _root(adapter: str, body: dict[str, Any], media: Sequence[Media]) -> int:
    keys = [adapter, _text(body.get("extra_key")), _text(body.get("cache_salt"))]
    if not media and not any(keys):
        return 0
    return _hash(orjson.dumps([*keys, *(blake2b(part.reference, digest_size=16).hexdigest() for part in media)]))


def _fixed(body: dict[str, Any], bound: int, schema: int) -> bool:
    """An answer of one token is that long; others run to their bound where the end token does not end them."""
    ends = schema or any(body.get(name) for name in _STOP_FIELDS)
    return bound == 1 or bool(body.get("ignore_eos") is True and not ends)


def _schema(body: dict[str, Any]) -> int:
    form = {name: body[name] for name in _FORM_FIELDS if body.get(name) is not None}
    if not form or form == {"response_format": {"type": "text"}}:
        return 0
    return _hash(orjson.dumps(form, option=orjson.OPT_SORT_KEYS))


def _tag(metadata: dict[str, Any], body: dict[str, Any]) -> str:
    own = body.get("metadata")
    for place in (metadata, own if isinstance(own, dict) else {}):
        for name in _TAG_NAMES:
            if isinstance(tag := place.get(name), str | int):
                return str(tag)
    return ""


# Jobs have few kinds of request; the bound keeps one with a kind a line from filling the memory.
@lru_cache(maxsize=4096)
def _cluster(url: str, model: str, bound: int, schema: int, tools: bool, tag: str) -> int:
    return _hash(orjson.dumps([url, model, bound, schema, tools, tag]))


def _reference(metadata: dict[str, Any]) -> int:
    tokens = metadata.get("reference_output_tokens")
    if not isinstance(tokens, int) or isinstance(tokens, bool) or not 0 <= tokens < 2**31 - 1:
        return -1
    return tokens


def _text(value: object) -> str:
    """A key as text; lists (SGLang takes them for batches) by their JSON."""
    if value is None or isinstance(value, str):
        return value or ""
    return orjson.dumps(value).decode()


def _hash(data: bytes) -> int:
    """u64, never 0."""
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "little") or 1
