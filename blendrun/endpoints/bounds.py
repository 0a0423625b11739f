"""What numbers of a request may be. An engine that meets others may end with all that it works on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from blendrun.endpoints.fields import must_be, refuse_field
from blendrun.errors import LineError

# Alternatives of a token. Each is some 100 bytes in the answer; SGLang sorts the vocabulary for more of them too.
MOST_LOGPROBS = 256
# SGLang's own bound.
_MOST_STOPS = 32
_MOST_BIAS = 100
_MOST_ID = 2**31 - 1


@dataclass(frozen=True, slots=True)
class _Range:
    """low, high: bounds, both taken; above: a lower bound that is not taken. whole: no fractions."""

    low: float | None = None
    high: float | None = None
    above: float | None = None
    whole: bool = False

    def check(self, name: str, value: Any) -> None:
        good = isinstance(value, int) if self.whole else isinstance(value, int | float)
        if isinstance(value, bool) or not good:
            raise self._error(name, value)
        # Never true of NaN.
        if not (
            (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
        ):
            raise self._error(name, value)

    def _error(self, name: str, value: Any) -> LineError:
        kind = "a whole number" if self.whole else "a number"
        bounds = [f"above {_shown(self.above)}"] if self.above is not None else []
        if self.low is not None:
            bounds.append(f"from {_shown(self.low)}" if self.high is not None else f"of {_shown(self.low)} or more")
        if self.high is not None:
            bounds.append(f"to {_shown(self.high)}" if self.low is not None else f"and at most {_shown(self.high)}")
        return must_be(name, " ".join([kind, *bounds]), value)


_RANGES = {
    "max_tokens": _Range(1, whole=True),
    "max_completion_tokens": _Range(1, whole=True),
    "n": _Range(1, whole=True),
    "min_tokens": _Range(0, _MOST_ID, whole=True),
    "seed": _Range(-(2**63), 2**63 - 1, whole=True),
    "temperature": _Range(0, 100),
    "top_p": _Range(high=1, above=0),
    "min_p": _Range(0, 1),
    "top_k": _Range(-1, whole=True),
    "presence_penalty": _Range(-2, 2),
    "frequency_penalty": _Range(-2, 2),
    "repetition_penalty": _Range(high=100, above=0),
    "top_logprobs": _Range(0, MOST_LOGPROBS, whole=True),
}
_BIAS, _ID = _Range(-_MOST_BIAS, _MOST_BIAS), _Range(0, _MOST_ID, whole=True)
_LOGPROBS = _Range(0, MOST_LOGPROBS, whole=True)


def check_bounds(body: dict[str, Any]) -> None:
    """Raises LineError for a number, or a list of them, that is not what its field may be. null is the default."""
    for name, bounds in _RANGES.items():
        if (value := body.get(name)) is not None:
            bounds.check(name, value)
    for name, check in _OTHERS.items():
        if (value := body.get(name)) is not None:
            check(name, value)
    if body.get("top_logprobs") and not body.get("logprobs"):
        raise refuse_field("top_logprobs", "it needs `logprobs`: true beside it")


def _check_logprobs(name: str, value: Any) -> None:
    """A flag in chats, a number in completions."""
    if not isinstance(value, bool):
        _LOGPROBS.check(name, value)


def _check_bias(name: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise refuse_field(name, 'it must be an object of token ids and numbers, such as {"504": -100}')
    for token, bias in value.items():
        if not (token.isascii() and token.isdecimal() and int(token[:20]) <= _MOST_ID):
            raise refuse_field(name, f"its names must be token ids (whole numbers of 0 or more), not {token!r:.40}")
        _BIAS.check(f"{name}.{token}", bias)


def _check_stop(name: str, value: Any) -> None:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(each, str) for each in texts):
        raise refuse_field(name, "it must be a string or a list of strings")
    if len(texts) > _MOST_STOPS:
        raise refuse_field(name, f"at most {_MOST_STOPS} can be watched for, not {len(texts):,}")


def _check_ids(name: str, value: Any) -> None:
    if not isinstance(value, list):
        raise refuse_field(name, "it must be a list of token ids")
    for each in value:
        _ID.check(f"{name}[]", each)


def _check_flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise must_be(name, "true or false", value)


_OTHERS: dict[str, Callable[[str, Any], None]] = {
    "logprobs": _check_logprobs,
    "logit_bias": _check_bias,
    "stop": _check_stop,
    "stop_token_ids": _check_ids,
    "stream": _check_flag,
    "echo": _check_flag,
    "ignore_eos": _check_flag,
}


def _shown(bound: float) -> str:
    return f"{bound:,}"
