"""Log probabilities of prompts that begin alike: what two of them share is worked out for one of them.

SGLang takes a prompt from its cache only up to where log probabilities are asked for, which is its beginning where they
are for scores. So of prompts in order each is asked from where it parts with the one before it, and has the rest from
that one: the same tokens behind the same tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

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
    alike: dict[str, list[tuple[bytes, int, NDArray[np.uint32]]]] = {}
    for place, body in enumerate(bodies):
        if (ids := _whole(body)) is not None:
            # In this order of bytes prompts lie as they do by their tokens.
            each = ids.astype(">u4").tobytes(), place, ids
            alike.setdefault(repr([body.get(name) for name in _ALIKE]), []).append(each)
    for prompts in alike.values():
        prompts.sort(key=itemgetter(0))
        for (_, before, first), (_, here, second) in pairwise(prompts):
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


def _whole(body: dict[str, Any]) -> NDArray[np.uint32] | None:
    """The ids of a prompt, u32 (N,), of which all log probabilities are asked for, and one answer; else None."""
    if body.get("return_logprob") is not True or body.get("logprob_start_len") != 0:
        return None
    if body.get("input_ids") is None or body["sampling_params"].get("n") not in (None, 1):
        return None
    try:
        ids = np.array(body["input_ids"])
    except (ValueError, OverflowError):
        return None
    if ids.dtype.kind != "i" or ids.ndim != 1 or not len(ids) or not 0 <= ids.min() <= ids.max() < _MOST_ID:
        return None
    return ids.astype(np.uint32)


def _shared(first: NDArray[np.uint32], second: NDArray[np.uint32]) -> int:
    """Tokens that two prompts, u32 (N,) and (M,), begin with."""
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
