"""Fuzzed requests that pass the parse stage: only tokenizer, grammar compiler or engine can refuse them."""

from __future__ import annotations

import orjson

from blendrun.errors import LineError
from blendrun.jobs.line import RequestLine, parse_line
from scripts.fuzz.lines import lines

_COUNT = 150
_MOST_TOKENS = 4
_MOST_CHOICES = 3
_COMMON = {"model", "messages", "prompt", "max_tokens"}


def fuzzed_job(seed: int = 7) -> list[bytes]:
    """Lines with ids of their own that are cheap to answer."""
    found: list[bytes] = []
    for raw in lines(seed, 100 * _COUNT):
        try:
            request = parse_line(raw)
        except LineError:
            continue
        # Plain requests are in the feature job already.
        if not _cheap(request) or set(request.body) <= _COMMON:
            continue
        name = f"fuzzed {len(found)}"
        found.append(orjson.dumps({"custom_id": name, "url": request.endpoint.url, "body": request.body}))
        if len(found) == _COUNT:
            break
    return found


def _cheap(request: RequestLine) -> bool:
    demand = request.endpoint.demand(request.body)
    few = demand.max_new_tokens is not None and demand.max_new_tokens <= _MOST_TOKENS
    return few and demand.choices <= _MOST_CHOICES and request.endpoint.prompt_characters(request.body) < 2000
