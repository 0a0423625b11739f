"""SGLang's own radix cache with a real allocator, in this process and without an engine."""

from __future__ import annotations

from array import array
from typing import Any

import torch

from blendrun.engine.base import Planned
from blendrun.engine.scheduler.next_use import mark, replace_lru
from blendrun.engine.scheduler.planned import attach_plan

POOL = 1000


class Cache:
    """SGLang's radix cache with a real allocator, and requests that pass through it."""

    def __init__(self, page_size: int = 1) -> None:
        from sglang.srt.mem_cache.allocator.token import TokenToKVPoolAllocator
        from sglang.srt.mem_cache.cache_init_params import CacheInitParams
        from sglang.srt.mem_cache.memory_pool import ReqToTokenPool
        from sglang.srt.mem_cache.unified_cache.components import ComponentType
        from sglang.srt.mem_cache.unified_radix_cache import UnifiedRadixCache

        self.rows = ReqToTokenPool(8, 256, "cpu", False)
        self.pool = TokenToKVPoolAllocator(POOL, torch.float32, "cpu", None, False)
        self.tree = UnifiedRadixCache(
            CacheInitParams(
                disable=False,
                req_to_token_pool=self.rows,
                token_to_kv_pool_allocator=self.pool,
                page_size=page_size,
                tree_components=(ComponentType.FULL,),
                tree_core_backend="python",
            )
        )
        replace_lru(None, self.tree.tree_core)

    def request(self, prompt: list[int], most: int, plan: Planned | None) -> Any:
        """A request that has looked for its prefix and waits. most: tokens that it may answer."""
        from sglang.srt.managers.schedule_batch import Req
        from sglang.srt.sampling.sampling_params import SamplingParams

        adapted: Any = type("Adapted", (), {"sampling_params": {}, "priority": None})()
        if plan is not None:
            attach_plan(adapted, plan)
        params = SamplingParams(max_new_tokens=most, **adapted.sampling_params)
        request = Req("a", "", array("q", prompt), params)
        request.priority = adapted.priority
        request.init_next_round_input(self.tree)
        return request

    def serve(self, prompt: list[int], answer: list[int], plan: Planned | None) -> None:
        """A request's whole life: it finds its prefix, publishes its prompt, answers and ends."""
        from sglang.srt.managers.schedule_batch import FINISH_LENGTH

        request = self.request(prompt, len(answer), plan)
        request.lock = self.tree.lock(request.last_node)
        self.rows.alloc([request])
        row, known = request.kv.req_pool_idx, request.prefix_len
        self.rows.write((row, slice(0, known)), self.tree.path_device_indices(request.last_node))
        self._grow(row, known, len(prompt))
        request.kv.kv_allocated_len = request.kv.kv_committed_len = len(prompt)
        mark(type(self.tree).checkpoint_into_tree, self.tree, request, up_to=len(prompt))
        self._grow(row, len(prompt), len(prompt) + len(answer))
        request.output_ids = array("q", [*answer, 7])
        request.kv.kv_allocated_len = request.kv.kv_committed_len = len(prompt) + len(answer)
        request.finished_reason = FINISH_LENGTH(len(answer))
        request.refresh_fill_ids()
        mark(type(self.tree).checkpoint_into_tree, self.tree, request, up_to=len(prompt) + len(answer))
        self.tree.unlock(request.lock)
        self.rows.free(request)

    def _grow(self, row: int, begin: int, end: int) -> None:
        self.rows.write((row, slice(begin, end)), self.pool.alloc(end - begin).to(torch.int32))

    def holds(self, ids: list[int]) -> int:
        """Leading tokens of `ids` that are cached, found without touching them."""
        node, depth = self.tree.tree_core.root_node, 0
        while depth < len(ids) and (child := node.children.get(ids[depth])) is not None:
            same = 0
            while same < len(child.key) and ids[depth + same : depth + same + 1] == [child.key.token_ids[same]]:
                same += 1
            depth += same
            if same < len(child.key):
                break
            node = child
        return depth

    def evict(self, tokens: int) -> None:
        from sglang.srt.mem_cache.base_prefix_cache import EvictParams

        self.tree.evict(EvictParams(num_tokens=tokens))
