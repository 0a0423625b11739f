"""Arguments of an engine that decodes nothing."""

from __future__ import annotations

from typing import Any

import pytest

from blendrun.engine.base import Platform
from blendrun.engine.embedding import embedding_arguments

WHOLE = {"disable_radix_cache": True, "chunked_prefill_size": -1}
NO_POOL = {**WHOLE, "attention_backend": "fa3", "prefill_only_disable_kv_cache": True}


@pytest.mark.parametrize(
    ("given", "platform", "bidirectional", "shares", "capability", "wanted"),
    [
        ({}, "cpu", False, False, None, {}),
        ({}, "cpu", True, True, None, {**WHOLE, "mem_fraction_static": 0.5}),
        ({}, "gpu", False, True, (9, 0), {}),
        ({}, "gpu", False, False, (9, 0), NO_POOL),
        ({}, "gpu", True, True, (9, 0), NO_POOL),
        ({}, "gpu", False, False, (8, 0), {}),
        ({}, "gpu", False, False, None, {}),
        ({"attention_backend": "triton"}, "gpu", False, False, (9, 0), {"attention_backend": "triton"}),
        ({"disable_radix_cache": False}, "gpu", True, False, (9, 0), {**WHOLE, "disable_radix_cache": False}),
    ],
)
def test_flags_made_for_prompts_alone_stand_where_the_engine_allows_them(
    given: dict[str, Any],
    platform: Platform,
    bidirectional: bool,
    shares: bool,
    capability: tuple[int, int] | None,
    wanted: dict[str, Any],
) -> None:
    found = embedding_arguments(
        given, platform, bidirectional=bidirectional, shares=shares, compute_capability=capability
    )
    assert found == {"is_embedding": True} | wanted
