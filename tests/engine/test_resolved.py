"""What SGLang settled on is read the way SGLang reads it: what was asked for lies below what came of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from blendrun.engine.resolved import Resolved, resolved

pytestmark = pytest.mark.runtime


def arguments(*settled: dict[str, Any], **asked: Any) -> SimpleNamespace:
    """As SGLang 0.5.23 keeps its arguments: fields, and decisions in the order in which they were made."""
    fields = dict.fromkeys(
        (
            *("chunked_prefill_size", "page_size", "attention_backend"),
            *("prefill_attention_backend", "decode_attention_backend"),
        )
    )
    return SimpleNamespace(**fields | asked, _resolved_overrides=[("a handler", each) for each in settled])


def test_what_came_of_it_counts() -> None:
    first, last = {"chunked_prefill_size": 8192, "page_size": 1}, {"chunked_prefill_size": 16384, "page_size": 64}
    found = resolved(arguments(first, {"attention_backend": "trtllm_mha"}, last))
    assert found == Resolved(16384, "trtllm_mha", 64)


def test_decoding_may_have_a_backend_of_its_own() -> None:
    found = resolved(
        arguments(
            page_size=1, chunked_prefill_size=4096, attention_backend="fa3", decode_attention_backend="flashinfer"
        )
    )
    assert found == Resolved(4096, "flashinfer", 1)


@pytest.mark.parametrize("chunk", [-1, None])
def test_prompts_that_are_not_cut(chunk: int | None) -> None:
    found = resolved(arguments(page_size=1, chunked_prefill_size=chunk, attention_backend="triton"))
    assert found == Resolved(None, "triton", 1)


def test_another_sglang_tells_nothing() -> None:
    assert resolved(object()) == Resolved()
