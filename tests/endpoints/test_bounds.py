"""Numbers that an engine must not see, each named with what it may be."""

from __future__ import annotations

import math
from typing import Any

import pytest

from blendrun.endpoints.bounds import MOST_LOGPROBS, check_bounds
from blendrun.errors import ErrorCode, LineError

GOOD: list[dict[str, Any]] = [
    {},
    {"temperature": 0, "top_p": 1, "min_p": 0, "top_k": -1, "seed": -(2**63), "logprobs": True, "top_logprobs": 20},
    {"temperature": 2.5, "presence_penalty": -2, "frequency_penalty": 2.0, "repetition_penalty": 1.3},
    {"logit_bias": {"504": -100, "0": 100.0}, "logprobs": MOST_LOGPROBS, "stop": ["a"] * 32, "stop_token_ids": [0]},
    {"logit_bias": None, "temperature": None, "stop": None, "top_logprobs": 0, "logprobs": False},
]
BAD: list[tuple[str, object, str]] = [
    ("temperature", -1, "a number from 0 to 100"),
    ("temperature", 1e300, "a number from 0 to 100"),
    ("temperature", math.nan, "a number from 0 to 100"),
    ("temperature", math.inf, "a number from 0 to 100"),
    ("temperature", "0.5", "a number"),
    ("temperature", True, "a number"),
    ("top_p", 0, "above 0 and at most 1"),
    ("top_p", 1.01, "above 0 and at most 1"),
    ("min_p", -0.1, "from 0 to 1"),
    ("presence_penalty", 2.01, "from -2 to 2"),
    ("frequency_penalty", -1e9, "from -2 to 2"),
    ("repetition_penalty", 0, "above 0"),
    ("top_k", -2, "of -1 or more"),
    ("top_k", 1.5, "a whole number"),
    ("seed", 2**63, "a whole number from"),
    ("seed", 1e40, "a whole number from"),
    ("min_tokens", -1, "a whole number from 0"),
    ("n", 0, "of 1 or more"),
    ("logprobs", 1_000_000, "from 0 to 256"),
    ("logprobs", -1, "from 0 to 256"),
    ("top_logprobs", 10**9, "from 0 to 256"),
    ("top_logprobs", True, "a whole number"),
    ("stop_token_ids", 5, "a list of token ids"),
    ("stop_token_ids", [-1], "from 0"),
    ("stop", 5, "a string or a list of strings"),
    ("stop", ["a", None], "a string or a list of strings"),
    ("stop", ["a"] * 33, "at most 32"),
    ("logit_bias", [1], "an object of token ids"),
    ("logit_bias", {"hello": 1}, "must be token ids"),
    ("logit_bias", {"-1": 1}, "must be token ids"),
    ("logit_bias", {"1.5": 1}, "must be token ids"),
    ("logit_bias", {"9" * 5000: 1}, "must be token ids"),
    ("logit_bias", {"٣": 1}, "must be token ids"),
    ("logit_bias", {"5": 101}, "from -100 to 100"),
    ("logit_bias", {"5": math.nan}, "from -100 to 100"),
    ("logit_bias", {"5": "x"}, "a number"),
    ("ignore_eos", 1, "true or false"),
]


@pytest.mark.parametrize("body", GOOD)
def test_good_ones_pass(body: dict[str, Any]) -> None:
    check_bounds(body)


@pytest.mark.parametrize(("name", "value", "words"), BAD, ids=str)
def test_bad_ones_are_named_with_what_they_may_be(name: str, value: object, words: str) -> None:
    with pytest.raises(LineError) as caught:
        check_bounds({"logprobs": True, name: value})
    assert caught.value.code is ErrorCode.INVALID_REQUEST
    assert caught.value.message.startswith(f"`{name}")
    assert words in caught.value.message
    assert len(caught.value.message) < 250


def test_alternatives_need_what_they_are_alternatives_of() -> None:
    with pytest.raises(LineError, match="`top_logprobs`: it needs `logprobs`"):
        check_bounds({"top_logprobs": 3})
