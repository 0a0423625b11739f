"""Engine arguments of what blendrun does not turn on by itself, and where SGLang would refuse them: pure functions.

Drafts from n-grams: SGLang has them in every step, and mixes no step then. Cache in host memory: HiCache. Neither has
been run with blendrun's hooks on a GPU.
"""

from __future__ import annotations

from typing import Any

from blendrun.engine.base import OverlapMode, Platform

_OFF = (None, False, "", 0)


def draft_arguments(overlap: OverlapMode, given: dict[str, Any], count: int, rows: int | None) -> dict[str, Any] | str:
    """Arguments for `count` n-gram drafts a row and step; or a sentence: why SGLang would not have them.

    given: the user's own. rows: answers at once, as planned; SGLang would make it 48 otherwise.
    """
    algorithm = given.get("speculative_algorithm")
    refusals = {
        f"the engine has speculative_algorithm={algorithm} already": algorithm not in _OFF,
        f"SGLang has no n-gram drafts in {overlap} mode: give --overlap exclusive": overlap != "exclusive",
    }
    if reason := next((reason for reason, holds in refusals.items() if holds), None):
        return reason
    # SGLang counts the token that no draft is, too. A chain of drafts, not a tree of them.
    found = {
        "speculative_algorithm": "NGRAM",
        "speculative_num_draft_tokens": count + 1,
        "speculative_ngram_max_bfs_breadth": 1,
    }
    return found if rows is None else found | {"max_running_requests": rows}


def host_arguments(platform: Platform, given: dict[str, Any], gigabytes: float) -> dict[str, Any] | str:
    """Arguments for a cache of `gigabytes` of host memory a device; or a sentence: why it cannot be had."""
    refusals = {
        "on a CPU, the cache is in the host's memory already": platform == "cpu",
        "SGLang has no cache in host memory where disable_radix_cache is set": given.get("disable_radix_cache") is True,
        "the engine has a cache in host memory already": given.get("enable_hierarchical_cache") is True,
        "SGLang's hicache_size is in whole gigabytes": gigabytes < 1,
    }
    if reason := next((reason for reason, holds in refusals.items() if holds), None):
        return reason
    return {"enable_hierarchical_cache": True, "hicache_size": int(gigabytes), "hicache_write_policy": "write_through"}
