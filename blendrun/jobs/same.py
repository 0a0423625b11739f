"""Which requests are one and the same: equal in all that decides their answer, which must be determined by that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from hashlib import blake2b
from typing import Any

import orjson

from blendrun.endpoints.base import Endpoint
from blendrun.endpoints.media import Place, place_of, references
from blendrun.jobs.line import DIGEST_BYTES, RequestLine
from blendrun.names import Dedupe

# The digest of a request that is like no other.
ALONE = bytes(DIGEST_BYTES)
# Below it SGLang's sampling takes the likeliest token (0.5.23, sampling_params.py: _SAMPLING_EPS).
_GREEDY_BELOW = 1e-6
# Different drawn requests that are remembered, to see that others are equal: it is for a note only.
_REMEMBERED = 1 << 16
# Fields of a server's bookkeeping: they decide nothing.
_BOOKKEEPING = frozenset(
    (
        *("user", "metadata", "store", "service_tier", "safety_identifier", "request_id"),
        *("prompt_cache_key", "prompt_cache_retention"),
    )
)
# Of the Responses API, whose answers repeat some of them.
_RESPONSES = "/v1/responses"


@dataclass(frozen=True, slots=True)
class Sameness:
    """dedupe: what is asked for. greedy: urls at which the engine decodes greedily where a line has no `temperature`.

    keeps: whether answers are kept for other runs, so that it has to be known which may be.
    """

    dedupe: Dedupe = Dedupe.AUTO
    greedy: frozenset[str] = frozenset()
    keeps: bool = False

    @property
    def copies(self) -> bool:
        """Whether equal requests of a job are asked once."""
        return self.dedupe is not Dedupe.OFF

    def asked(self, request: RequestLine) -> tuple[bytes, bool]:
        """16 bytes that are equal where requests are, ALONE for one that is like no other; and whether its answer may
        be kept: what a line names and does not hold may be something else tomorrow.
        """
        body = request.body
        if _several(body) or self.drawn(request):
            return ALONE, False
        url, results = request.endpoint.url, False
        if request.spoken is not None:
            url, results = request.spoken.api.url, request.spoken.results
        keepable = self.keeps and all(place_of(each) is Place.DATA for each in references(body))
        digest = _begun(url, results).copy()
        digest.update(_deciding(url, request))
        return digest.digest(), keepable

    def drawn(self, request: RequestLine) -> bool:
        """Whether a request of one answer stands by itself because that is drawn anew each time."""
        if self.dedupe is Dedupe.ON or _several(request.body):
            return False
        return not self._determined(request.endpoint, request.body)

    def _determined(self, endpoint: Endpoint, body: Mapping[str, Any]) -> bool:
        """Whether the same request would be answered the same again."""
        # What decodes nothing is computed, and a seed decides what is drawn.
        if not endpoint.bound_fields or body.get("seed") is not None or body.get("top_k") == 1:
            return True
        temperature = body.get("temperature")
        if temperature is None:
            return endpoint.url in self.greedy
        return bool(0 <= temperature < _GREEDY_BELOW)


@dataclass(slots=True)
class Drawn:
    """Requests whose answers are drawn. lines: all. equal: those that ask what another one asks, of as many different
    ones as are remembered.
    """

    lines: int = 0
    equal: int = 0
    _seen: set[int] = field(default_factory=set)

    def add(self, request: RequestLine) -> None:
        """Count one more."""
        self.lines += 1
        mark = hash((request.endpoint.url, _deciding(request.endpoint.url, request)))
        if mark in self._seen:
            self.equal += 1
        elif len(self._seen) < _REMEMBERED:
            self._seen.add(mark)

    def forget(self) -> Drawn:
        """The counts alone."""
        return Drawn(self.lines, self.equal)


def _several(body: Mapping[str, Any]) -> bool:
    return (body.get("n") or 1) != 1 or (body.get("best_of") or 1) != 1


@cache
def _begun(url: str, results: bool) -> blake2b:
    """A digest that all requests of a url begin with. results: whether it is answered in the form of a batch."""
    return blake2b(f"{url}\0{results}\0".encode(), digest_size=DIGEST_BYTES)


def _deciding(url: str, request: RequestLine) -> bytes:
    """The body without what decides nothing, in one spelling of JSON."""
    if url == _RESPONSES or _BOOKKEEPING.isdisjoint(request.given):
        return request.canonical
    body = {name: value for name, value in request.given.items() if name not in _BOOKKEEPING}
    return orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
