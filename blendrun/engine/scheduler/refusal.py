"""When a request that was refused would be refused again, so that SGLang need not look for a prefill batch at all.

As long as the same rows run and the same requests wait, nothing of what a refusal depends on changes but tokens: what
the rows have answered, what is free, and what the runner expects. What a newcomer shares with the cache does change
by evictions, but not the room that it would leave: a prefix that nothing holds counts as taken, cached or not. Nor does
the order of evictions change: between looks that are spared nothing is put into the cache.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from blendrun.engine.older import free_tokens
from blendrun.engine.scheduler.rows import running
from blendrun.engine.sglang_names import BATCH_PLAN, load

# Parts of SGLang's scheduler that look at each step by themselves, or admit others than the first of the queue.
_APART = (
    "enable_lora", "prefill_delayer", "min_free_slots_delayer", "dllm_config", "enable_hisparse",
    "enable_priority_preemption", "is_hybrid_swa", "enable_hierarchical_cache", "enable_hicache_storage",
    "enable_lmcache", "enable_unified_cache_external_linker",
)  # fmt: skip


@dataclass(slots=True)
class Refusal:
    """The first request of the queue did not come in, and none behind it.

    room: tokens that were free once its prompt was in. beside: 1 where rows decode while it is prefilled, else 0.
    """

    request: Any
    room: int
    beside: int
    rows: list[Any] = field(default_factory=list)
    _queue: list[Any] = field(default_factory=list)
    _free: int = 0
    _mixed: bool = False

    def noted(self, scheduler: Any, running_batch: Any) -> Refusal:
        """With what the step was like."""
        self.rows, self._queue = running(running_batch.reqs), list(scheduler.waiting_queue)
        self._free, self._mixed = free_tokens(scheduler), bool(scheduler.is_mixed_chunk)
        return self

    def is_same_step(self, scheduler: Any, running_batch: Any) -> bool:
        """Whether nothing has come, gone or been prefilled since."""
        return (
            scheduler.waiting_queue == self._queue
            # A budget may take it off for a step (`scheduler.budget`), and then `beside` is another.
            and bool(scheduler.is_mixed_chunk) == self._mixed
            and running(running_batch.reqs) == self.rows
            and not running_batch.batch_is_full
            and not scheduler.grammar_manager.has_waiting_grammars()
        )

    def room_now(self, scheduler: Any) -> int:
        return self.room + free_tokens(scheduler) - self._free


def is_plain(scheduler: Any) -> bool:
    """Whether an admission depends on nothing but the first request that waits, the rows and the pool."""
    return (
        scheduler.chunked_req is None
        and scheduler.policy.policy.value == "fcfs"
        # What is being prefilled is about to publish what it computes.
        and not any(batch.forward_mode.is_extend() for batch, _ in getattr(scheduler, "result_queue", ()))
        and not any(getattr(scheduler, name, True) for name in _APART)
    )


def keep_prefixes(scheduler: Any) -> None:
    """What SGLang does every so many times that it looks: the cache is not to drop what those that wait will use."""
    # Before 0.5.22 SGLang does nothing of the kind.
    if touch := getattr(scheduler.policy, "_touch_waiting_prefixes", None):
        touch(scheduler.policy.policy, scheduler.waiting_queue)


def nothing_to_run(running_batch: Any) -> Any:
    """SGLang's answer where no prefill batch comes of a step."""
    return load(BATCH_PLAN)(batch_to_run=None, running_batch=running_batch)
