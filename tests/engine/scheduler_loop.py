"""SGLang's own admission, batches, cache and retraction in this process: a scheduler without model, device and queue.

What a model would answer is made up: one token a row and step, until a request has as many as it was given. Results
come one step later, as SGLang's overlapped loop has them.
"""

from __future__ import annotations

import functools
import pkgutil
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch

from blendrun.engine.base import Planned
from blendrun.engine.scheduler.hooks import Hook, guarded
from blendrun.engine.scheduler.planned import attach_plan

# Of SGLang's scheduler: what is off in a loop, and what there is not.
_OFF = (
    "enable_lora", "enable_hisparse", "enable_priority_preemption", "enable_hierarchical_cache", "enable_lmcache",
    "enable_unified_cache_external_linker", "enable_hicache_storage", "enable_pdmux", "is_hybrid_swa",
    "require_mlp_sync",
)  # fmt: skip
_NONE = (
    "last_batch", "chunked_req", "dllm_config", "prefill_delayer", "min_free_slots_delayer", "dynamic_chunk_sizer",
    "truncation_align_size", "decode_offload_manager", "scheduler_stage_metrics", "hisparse_coordinator",
    "disaggregation_mode", "lora_drainer",
)  # fmt: skip


@contextmanager
def engine_settings(model: str) -> Iterator[None]:
    """SGLang's settings, which its classes look into. model: a folder."""
    from sglang.srt.runtime_context import create_context, get_parallel, use_context
    from sglang.srt.server_args import ServerArgs

    arguments = ServerArgs(model_path=model, device="cpu", pp_max_micro_batch_size=4096)
    with (
        use_context(create_context(arguments, role="test")),
        get_parallel().override(tp_rank=0, pp_rank=0, dp_rank=None),
    ):
        yield


@contextmanager
def hooked(hooks: Sequence[Hook]) -> Iterator[None]:
    """Hooks on SGLang's classes while the context lasts, the later the outer; no model runs beneath them."""
    from sglang.srt.managers.scheduler import Scheduler

    with ExitStack() as stack:
        stack.enter_context(patch.object(Scheduler, "run_batch", lambda scheduler, batch: SimpleNamespace()))
        stack.enter_context(patch.object(Scheduler, "process_batch_result", _answer))
        for hook in hooks:
            owner, _, name = hook.target.rpartition(".")
            target = pkgutil.resolve_name(owner)
            stack.enter_context(patch.object(target, name, _around(getattr(target, name), guarded(hook, None))))
        yield


def _around(original: Any, function: Any) -> Any:
    @functools.wraps(original)
    def around(*args: Any, **kwargs: Any) -> Any:
        return function(original, *args, **kwargs)

    return around


def _answer(scheduler: Any, batch: Any, result: Any) -> None:
    scheduler.loop.answer(batch)


class Loop:
    """A scheduler's state, and its steps. pool: tokens. core: of the radix tree, "python" or "rust"."""

    def __init__(self, pool: int, rows: int, *, chunk: int = 8192, mixed: bool = False, core: str = "python",
                 context: int = 4096, page: int = 1) -> None:  # fmt: skip
        from sglang.srt.mem_cache.allocator.paged import PagedTokenToKVPoolAllocator
        from sglang.srt.mem_cache.allocator.token import TokenToKVPoolAllocator
        from sglang.srt.mem_cache.cache_init_params import CacheInitParams
        from sglang.srt.mem_cache.memory_pool import ReqToTokenPool
        from sglang.srt.mem_cache.unified_cache.components import ComponentType
        from sglang.srt.mem_cache.unified_radix_cache import UnifiedRadixCache

        self.table = ReqToTokenPool(rows, context, "cpu", False)
        self.pool = (
            TokenToKVPoolAllocator(pool, torch.float32, "cpu", None, False)
            if page == 1
            else PagedTokenToKVPoolAllocator(pool, page, torch.float32, "cpu", None, False)
        )
        self.tree = UnifiedRadixCache(
            CacheInitParams(
                disable=False, req_to_token_pool=self.table, token_to_kv_pool_allocator=self.pool, page_size=page,
                tree_components=(ComponentType.FULL,), tree_core_backend=core,
            )
        )  # fmt: skip
        self.total, self.mixed, self.chunk, self.page, self.rows = pool, mixed, chunk, page, rows
        self.answers: dict[str, int] = {}
        self.admitted: list[tuple[int, int]] = []
        self.retracted: list[tuple[int, int]] = []
        self.step = 0
        self.scheduler = self._scheduler()

    def _scheduler(self) -> Any:
        from sglang.srt.managers.schedule_batch import ScheduleBatch
        from sglang.srt.managers.schedule_policy import SchedulePolicy
        from sglang.srt.managers.scheduler import Scheduler
        from sglang.srt.speculative.spec_info import SpeculativeAlgorithm

        scheduler = object.__new__(Scheduler)
        nothing = SimpleNamespace(is_encoder_decoder=False, vocab_size=1 << 20, is_multimodal=False)
        metrics = SimpleNamespace(enable_metrics=False, num_retracted_reqs=0)
        scheduler.__dict__.update(
            dict.fromkeys(_OFF, False) | dict.fromkeys(_NONE),
            loop=self, tree_cache=self.tree, token_to_kv_pool_allocator=self.pool, req_to_token_pool=self.table,
            running_batch=ScheduleBatch(reqs=[], batch_is_full=False), waiting_queue=[], result_queue=deque(),
            page_size=self.page, is_mixed_chunk=self.mixed, chunked_prefill_size=self.chunk, max_prefill_tokens=16384,
            max_running_requests=self.rows, max_total_num_tokens=self.total, device="cpu", model_config=nothing,
            enable_overlap=True, enable_priority_scheduling=True, enable_skip_finishing_decode=True, is_generation=True,
            priority_scheduling_preemption_threshold=0, max_prefill_bs=0, processed_tokens_counter=0, forward_ct=0,
            prefill_decode_interval=0, _prefill_decode_interval_remaining=0, spec_algorithm=SpeculativeAlgorithm.NONE,
            new_token_ratio_tracker=SimpleNamespace(current=0.7, decay_step=lambda: None),
            grammar_manager=SimpleNamespace(has_waiting_grammars=lambda: False),
            beam_coordinator=SimpleNamespace(pending_member_rows=lambda _: 0, retire_group=lambda _: None),
            tp_worker=SimpleNamespace(model_runner=SimpleNamespace(attn_backend=None, prefill_aware_swa=False)),
            load_inquirer=SimpleNamespace(_get_num_pending_tokens=lambda **_: 0), metrics_reporter=metrics,
            dp_attn_adapter=SimpleNamespace(
                maybe_prepare_mlp_sync_batch=lambda batch, need_sync=False: batch,
                maybe_convert_decode_to_extend=lambda batch: batch,
            ),
            ngram_embedding_manager=SimpleNamespace(prepare_for_forward=lambda batch, chunked_req: batch),
            process_pending_chunked_abort=lambda: None, _add_request_to_queue=self._requeue,
            send_abort_output=lambda *_: None, policy=SchedulePolicy("fcfs", self.tree, False, True, True),
        )  # fmt: skip
        return scheduler

    def _requeue(self, request: Any, is_retracted: bool = False) -> None:
        self.retracted.append((self.step, request.priority))
        self.scheduler.waiting_queue.append(request)

    def submit(self, name: str, prompt: list[int], answer: int, plan: Planned | None, most: int = 4000) -> Any:
        """A request comes in. answer: tokens that the model will answer; plan: what is expected."""
        from sglang.srt.managers.schedule_batch import Req
        from sglang.srt.sampling.sampling_params import SamplingParams

        adapted: Any = SimpleNamespace(sampling_params={}, priority=0)
        if plan is not None:
            attach_plan(adapted, plan)
        params = SamplingParams(max_new_tokens=most, **adapted.sampling_params)
        request = Req(name, "", array("q", prompt), params, vocab_size=1 << 20)
        request.priority = adapted.priority
        self.answers[name] = answer
        self.scheduler.waiting_queue.append(request)
        return request

    def abort(self, request: Any) -> None:
        """Of one that waits, at once; of one that runs, with its next token."""
        if request in self.scheduler.waiting_queue:
            self.scheduler.waiting_queue.remove(request)
        else:
            self.answers[request.rid] = 0

    def run(self) -> Any:
        """One pass of the overlapped loop; the batch that was launched, None for none."""
        scheduler = self.scheduler
        plan = scheduler.get_next_batch_to_run(running_batch=scheduler.running_batch, last_batch=scheduler.last_batch)
        scheduler.running_batch, batch = plan.running_batch, plan.batch_to_run
        if batch:
            if batch.forward_mode.is_extend():
                decoding = {request.rid for request in batch.decoding_reqs or ()}
                self.admitted += [(self.step, each.priority) for each in batch.reqs if each.rid not in decoding]
            result = scheduler.run_batch(batch)
            scheduler.result_queue.append((batch.copy(), result))
        if scheduler.last_batch:
            scheduler.process_batch_result(*scheduler.result_queue.popleft())
        scheduler.last_batch = batch
        self.step += 1
        return batch

    def answer(self, batch: Any) -> None:
        """What SGLang's result processor does with the tokens of a batch."""
        from sglang.srt.managers.schedule_batch import FINISH_LENGTH
        from sglang.srt.mem_cache.common import release_kv_cache

        extend = batch.forward_mode.is_extend()
        decoding = set(batch.decoding_reqs or ()) if extend else set(batch.reqs)
        for request in batch.reqs:
            if request.finished() or request.is_retracted:
                continue
            if request.inflight_middle_chunks > 0:
                request.inflight_middle_chunks -= 1
                continue
            request.output_ids.append(1 << 19 | len(request.output_ids))
            if len(request.output_ids) >= self.answers[request.rid]:
                request.finished_reason = FINISH_LENGTH(len(request.output_ids))
                request.finished_len = len(request.output_ids)
                release_kv_cache(request, self.tree, checkpoint=True)
            elif request not in decoding:
                self.tree.checkpoint(request, up_to=request.extend_end)
