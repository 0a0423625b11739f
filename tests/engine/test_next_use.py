"""What the radix cache drops first, on SGLang's own cache."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from blendrun.engine.base import Planned
from blendrun.engine.scheduler.next_use import mark, replace_lru
from blendrun.engine.scheduler.planned import attach_plan

pytestmark = pytest.mark.runtime

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

    def serve(self, prompt: list[int], answer: list[int], plan: Planned | None) -> None:
        """A request's whole life: it finds its prefix, publishes its prompt, answers and ends."""
        from sglang.srt.managers.schedule_batch import FINISH_LENGTH, Req
        from sglang.srt.sampling.sampling_params import SamplingParams

        adapted: Any = type("Adapted", (), {"sampling_params": {}, "priority": None})()
        if plan is not None:
            attach_plan(adapted, plan)
        params = SamplingParams(max_new_tokens=len(answer), **adapted.sampling_params)
        request = Req("a", "", array("q", prompt), params)
        request.priority = adapted.priority
        request.init_next_round_input(self.tree)
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


@pytest.fixture
def cache() -> Iterator[Cache]:
    found = Cache()
    yield found
    assert found.pool.available_size() + found.tree.evictable_size() == POOL, "no token is lost or counted twice"


SHARED = list(range(100, 140))


def own(number: int, tokens: int = 10) -> list[int]:
    return [1000 * (number + 1) + place for place in range(tokens)]


def test_answers_and_tails_go_before_what_is_used_again_though_it_is_older(cache: Cache) -> None:
    cache.serve(SHARED + own(0), own(10), Planned(0, 10, len(SHARED)))
    cache.serve(own(1), own(11), Planned(1, 10, 0))
    cache.evict(40)
    assert cache.holds(SHARED + own(0)) == len(SHARED)
    assert cache.holds(own(1)) == 0
    cache.evict(1)
    assert cache.holds(SHARED) == 0


def test_the_oldest_of_the_useless_goes_first(cache: Cache) -> None:
    for number in range(3):
        cache.serve(own(number), own(10 + number), Planned(number, 10, 0))
    cache.evict(20)
    assert [cache.holds(own(number)) for number in range(3)] == [0, 10, 10]


def test_a_shared_prefix_is_useless_once_its_last_user_is_through(cache: Cache) -> None:
    cache.serve(SHARED + own(0), own(10), Planned(0, 10, len(SHARED)))
    cache.serve(own(5), own(15), Planned(1, 10, len(own(5))))
    cache.serve(SHARED + own(1), own(11), Planned(2, 10, 0))
    # 40 tokens of tails and answers, then the prefix, which is the newest of all.
    cache.evict(50 + len(SHARED))
    assert cache.holds(SHARED) == 0
    assert cache.holds(own(5)) == 10


def test_the_last_in_plan_order_decides_in_whatever_order_they_end(cache: Cache) -> None:
    cache.serve(SHARED + own(1), own(11), Planned(2, 10, 0))
    cache.serve(SHARED + own(0), own(10), Planned(0, 10, len(SHARED)))
    cache.serve(own(5), own(15), Planned(1, 10, len(own(5))))
    cache.evict(50 + len(SHARED))
    assert cache.holds(SHARED) == 0
    assert cache.holds(own(5)) == 10


def test_a_later_user_makes_it_useful_again(cache: Cache) -> None:
    cache.serve(SHARED + own(0), own(10), Planned(0, 10, 0))
    cache.serve(SHARED + own(1), own(11), Planned(3, 10, len(SHARED)))
    cache.serve(own(5), own(15), Planned(4, 10, 0))
    cache.evict(60)
    assert cache.holds(SHARED) == len(SHARED)


def test_a_part_of_a_prompt_is_kept_where_only_that_is_used_again(cache: Cache) -> None:
    cache.serve(SHARED + own(0), own(10), Planned(0, 10, 25))
    cache.evict(1)
    cache.evict(1)
    assert cache.holds(SHARED + own(0)) == 25


def test_without_plans_the_cache_drops_the_oldest(cache: Cache) -> None:
    for number in range(3):
        cache.serve(own(number), [], None)
    cache.evict(20)
    assert [cache.holds(own(number)) for number in range(3)] == [0, 0, 10]


def test_another_strategy_of_the_users_stays(cache: Cache) -> None:
    with pytest.raises(TypeError, match="NextUseStrategy was asked for"):
        replace_lru(None, cache.tree.tree_core)
