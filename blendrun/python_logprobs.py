"""Log probabilities of prompts that begin alike: what two of them share is worked out for one of them.

SGLang takes a prompt from its cache only up to where log probabilities are asked for, which is its beginning where they
are for scores. So of prompts in order each is asked from where it parts with the one before it, and has the rest from
that one: the same tokens behind the same tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from blendrun.endpoints.inputs import are_ids

# Fewer tokens are not worth the way there.
_LEAST = 16
# No vocabulary is as large.
_MOST_ID = 1 << 31
# Of `meta_info`: a value for each token from `logprob_start_len` on, the first of which is none.
_LISTS = ("input_token_logprobs", "input_top_logprobs", "input_token_ids_logprobs")
# What has to be the same for two requests to have the same values.
_ALIKE = ("top_logprobs_num", "token_ids_logprob", "return_text_in_logprobs", "lora_path")


class Source(NamedTuple):
    """Where a request, of `tokens`, has the values of its first `shared` tokens from: the request at `place`."""

    place: int
    shared: int
    tokens: int


def parted(bodies: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[int, Source]]:
    """Bodies as they are to be asked, and sources by place, each behind its own source's."""
    asked, sources = list(bodies), dict[int, Source]()
    alike: dict[str, list[int]] = {}
    for place, body in enumerate(bodies):
        if _is_whole(body):
            alike.setdefault(repr([body.get(name) for name in _ALIKE]), []).append(place)
    for places in alike.values():
        places.sort(key=lambda place: bodies[place]["input_ids"])
        prompts = [np.array(bodies[place]["input_ids"], dtype=np.int64) for place in places]
        for before, here, first, second in zip(places, places[1:], prompts, prompts[1:], strict=False):
            if (count := _shared(first, second)) >= _LEAST:
                sources[here] = Source(before, count, len(second))
                # The value of a token comes with the one before it.
                asked[here] = bodies[here] | {"logprob_start_len": count - 1}
    return asked, sources


def put_together(answers: list[dict[str, Any]], sources: dict[int, Source]) -> list[int]:
    """Give answers what they share with others. Returns places of those that cannot have it: to be asked as a whole."""
    missing = set[int]()
    for place, source in sources.items():
        if source.place in missing or not _give(answers[place], answers[source.place], source):
            missing.add(place)
    return sorted(missing)


def _is_whole(body: dict[str, Any]) -> bool:
    """Whether all log probabilities of a prompt of ids are asked for, and one answer."""
    wanted, ids = body.get("return_logprob") is True and body.get("logprob_start_len") == 0, body.get("input_ids")
    one = body["sampling_params"].get("n") in (None, 1)
    return wanted and one and are_ids(ids) and max(ids or (), default=_MOST_ID) < _MOST_ID


def _shared(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> int:
    """Tokens that two prompts, i64 (N,) and (M,), begin with."""
    most = min(len(first), len(second))
    differ = np.flatnonzero(first[:most] != second[:most])
    return int(differ[0]) if len(differ) else most


def _give(answer: dict[str, Any], giver: dict[str, Any], source: Source) -> bool:
    """Whether an answer has what it shares now: both are as long as they should be."""
    own, other = answer.get("meta_info"), giver.get("meta_info")
    if not isinstance(own, dict) or not isinstance(other, dict):
        return False
    found = dict[str, list[Any]]()
    for name in _LISTS:
        mine, theirs = own.get(name), other.get(name)
        if not mine and not theirs:
            continue
        if not isinstance(mine, list) or not isinstance(theirs, list):
            return False
        whole = theirs[: source.shared] + mine[1:]
        if not mine or len(theirs) < source.shared or len(whole) != source.tokens:
            return False
        found[name] = whole
    own |= found
    return True
