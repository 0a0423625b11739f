"""What would turn on drafts and a cache in host memory, and where SGLang refuses them."""

from __future__ import annotations

import pytest

from blendrun.engine.base import OverlapMode
from blendrun.engine.extras import draft_arguments, host_arguments


def test_drafts_are_a_chain_and_keep_the_plan_s_rows() -> None:
    found = draft_arguments("exclusive", {}, 4, 300)
    assert found == {
        "speculative_algorithm": "NGRAM",
        "speculative_num_draft_tokens": 5,
        "speculative_ngram_max_bfs_breadth": 1,
        "max_running_requests": 300,
    }
    assert "max_running_requests" not in draft_arguments("exclusive", {}, 4, None)


@pytest.mark.parametrize("overlap", ["mixed", "pdmux"])
def test_drafts_do_not_mix(overlap: OverlapMode) -> None:
    assert draft_arguments(overlap, {}, 4, 300) == (
        f"SGLang has no n-gram drafts in {overlap} mode: give --overlap exclusive"
    )


def test_drafts_of_the_user_s_stay() -> None:
    assert "EAGLE already" in draft_arguments("exclusive", {"speculative_algorithm": "EAGLE"}, 4, None)


def test_a_cache_in_host_memory() -> None:
    found = host_arguments("gpu", {}, 64.5)
    assert found == {
        "enable_hierarchical_cache": True,
        "hicache_size": 64,
        "hicache_write_policy": "write_through",
    }
    assert "CPU" in host_arguments("cpu", {}, 64)
    assert "disable_radix_cache" in host_arguments("gpu", {"disable_radix_cache": True}, 64)
    assert "already" in host_arguments("gpu", {"enable_hierarchical_cache": True}, 64)
    assert "whole" in host_arguments("gpu", {}, 0.5)
