"""Eviction by next use: first what no request to come can use, the oldest first, then as SGLang does.

The plan says how many leading tokens of a prompt a request fed later can use again. A node of the radix cache carries
the mark of the last request in plan order that went over it, in SGLang's own `priority` field: the larger one stays
when a node is inserted again, and both parts of a split node keep it. Only the Python tree takes an eviction strategy
from outside, so the engine is started with that one (`settings.environment`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from blendrun.engine.scheduler.hooks import Hook
from blendrun.engine.scheduler.leaves import Leaves
from blendrun.engine.scheduler.planned import plan_of
from blendrun.engine.sglang_names import (
    CHECKPOINT,
    EVICTION_NEXT,
    EVICTION_START,
    INSERT_PARAMS,
    LRU_STRATEGY,
    NEW_TREE,
    RADIX_KEY,
    load,
)

# A mark is 4 * (index + 1) and one of these. SGLang itself inserts a prompt with one more than the answer behind it.
_ANSWER, _PROMPT, _REUSED = 1, 2, 3


class NextUseStrategy:
    """SGLang's eviction strategy: of the nodes that nothing runs on, the smallest value goes first."""

    def get_priority(self, node: Any) -> tuple[bool, float]:
        """What no request to come can use is below all else."""
        return node.priority % 4 not in (_ANSWER, _PROMPT), node.last_access_time


class NextUse:
    """Marks what finished and unfinished requests leave in the cache."""

    def hooks(self) -> list[Hook]:
        return [
            Hook("next_use", NEW_TREE, replace_lru, "after"),
            Hook("next_use", CHECKPOINT, mark, "around"),
            Hook("next_use", EVICTION_START, begin_walk, "around", warmed=False),
            Hook("next_use", EVICTION_NEXT, next_leaf, "around", warmed=False),
        ]


def replace_lru(_: None, tree: Any, *args: Any, **kwargs: Any) -> None:
    """Take the place of SGLang's default. Raises TypeError where the user chose another."""
    if not isinstance(tree.eviction_strategy, load(LRU_STRATEGY)):
        raise TypeError(f"eviction by {type(tree.eviction_strategy).__name__} was asked for")
    tree.eviction_strategy = NextUseStrategy()


def begin_walk(original: Callable[..., Any], component: Any, request_cnt: int) -> None:
    """SGLang's beginning of an eviction, with leaves that are in order already."""
    tree = component.tree_core
    # Of sessions' caches the order is another. Where a leaf is written back it may stay, and would be first again.
    if not isinstance(tree.eviction_strategy, NextUseStrategy) or tree.is_write_back or tree.enable_session_radix_cache:
        original(component, request_cnt)
        return
    # The first time, and after the cache was flushed.
    if not isinstance(tree.evictable_device_leaves, Leaves):
        tree.evictable_device_leaves = Leaves(tree.evictable_device_leaves, tree.eviction_strategy.get_priority)
    component._ensure_eviction_strategy()
    component._evict_device_request_cnt = request_cnt
    component._evict_device_last_node, component._evict_device_heap = None, None


def next_leaf(original: Callable[..., Any], component: Any, *args: Any, **kwargs: Any) -> Any:
    """SGLang's next leaf to evict, which it takes out of a heap of one."""
    leaves = component.tree_core.evictable_device_leaves
    if isinstance(leaves, Leaves) and component._evict_device_heap is None:
        first = leaves.first()
        component._evict_device_heap = [] if first is None else [first]
        try:
            return original(component, *args, **kwargs)
        finally:
            component._evict_device_last_node, component._evict_device_heap = None, None
    return original(component, *args, **kwargs)


def forget_marks(cache: Any) -> None:
    """Marks are of a plan: behind it nothing is known of what it leaves, so nothing of that is useless.

    Of what is in the cache, then, the next plan's useless part goes first, then what it did not touch, then the rest.
    """
    tree = getattr(cache, "tree_core", None)
    if tree is None or not isinstance(tree.eviction_strategy, NextUseStrategy):
        return
    waiting = list(tree.root_node.children.values())
    while waiting:
        node = waiting.pop()
        # A leaf's value grows by this or stays, as `Leaves` has to have it.
        node.priority = _REUSED
        waiting.extend(node.children.values())


def mark(original: Callable[..., Any], cache: Any, request: Any, *args: Any, up_to: int, **kwargs: Any) -> Any:
    """SGLang's insert of what a request has computed, and its reused part again with a mark of its own."""
    plan = plan_of(request)
    priority = request.priority
    # Of a request without a plan nothing is known, so nothing it leaves is useless.
    request.priority = _REUSED if plan is None else 4 * (plan.index + 1) + _ANSWER
    try:
        result = original(cache, request, *args, up_to=up_to, **kwargs)
    finally:
        request.priority = priority
    if plan is not None and not cache.disable:
        _mark_reused(cache, request, min(plan.reuse, up_to), 4 * (plan.index + 1) + _REUSED)
    return result


def _mark_reused(cache: Any, request: Any, tokens: int, priority: int) -> None:
    """Insert the first `tokens` of a request again. They are all in the tree: only marks and node borders change."""
    insert_params, radix_key = load(INSERT_PARAMS), load(RADIX_KEY)
    # Caches of several kinds in one tree have no such borders (SGLang's own split at the prompt's end does the same).
    if len(cache._components_tuple) > 1:
        return
    ids = request.full_untruncated_fill_ids[: min(tokens, request.kv.cache_protected_len)]
    key = radix_key(ids, request.extra_key, is_bigram=cache.tree_core.is_eagle, cache_salt=request.cache_salt)
    key = key.page_aligned(cache.page_size)
    if len(key) == 0:
        return
    slots = cache.req_to_token_pool.req_to_token[request.kv.req_pool_idx, : len(key)]
    cache.insert(
        insert_params(
            key=key,
            value=slots.to(dtype=load("torch.int64"), copy=True),
            prev_prefix_len=len(key),
            inserted_len=len(key),
            priority=priority,
            rotation_base=request.kv_rotation_base,
        )
    )
