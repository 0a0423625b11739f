"""One line of JSON for each forward pass: what ran in it, what it found in the cache, how full the pool was.

The first rank of a model logs. Data-parallel ranks behind the first have files of their own, named by the rank.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from blendrun.engine.older import data_rank
from blendrun.engine.scheduler.budget import StepBudget
from blendrun.engine.scheduler.hooks import Hook
from blendrun.engine.scheduler.log_file import LogFile
from blendrun.engine.scheduler.planned import WARM_UP_ID, plan_of
from blendrun.engine.scheduler.step_times import Launched, StepTimes, wait_for
from blendrun.engine.sglang_names import BATCH_RESULT, PARALLEL, RETRACT, RUN_BATCH, load


class StepLog:
    """Writes one line a step, made of these fields.

    step: number, from 0, in the order in which they were done. time: seconds since the scheduler began to run, when the
    step began on the device. mode: "prefill", "decode" or "mixed". prefill_tokens: computed. begun: requests whose
    prefill begins. prefill_square: sum of b^2 - a^2 over the chunks, each from token a to token b of its prompt.
    recomputed_tokens: of the computed ones, what requests that were sent back cost again. prefill_requests: that took
    part. hit_tokens: found in the cache by those admitted for the first time. admitted: places in the plan of those
    whose prefill begins. decode_rows: answers that grow by a token. context_tokens: their tokens in the cache before
    the step. kv_used: tokens of the pool that something runs on. evictable: cached tokens that nothing runs on.
    waiting: requests in the engine's queue. retracted: sent back for want of room, so far. sent_back: places in the
    plan of those sent back just before this step. seconds: that it took. parallel: whether prefill and decode have
    parts of the device of their own, so that steps of the two do not come one after the other. budget: most prefill
    tokens of the step, null without a budget.
    """

    def __init__(self, path: str, budget: StepBudget | None, *, every_rank: bool = False) -> None:
        """every_rank: ranks that share a model all log, which is to be the same, each to a file of its own."""
        self._path, self._every_rank = path, every_rank
        self._file: LogFile | None = None
        self._logs: bool | None = None
        self._budget = budget
        self._began = time.monotonic()
        self._times = StepTimes()
        self._steps = 0
        self._retracted = 0
        self._sent_back: list[int] = []
        self._chunked: Any = None

    def hooks(self) -> list[Hook]:
        return [
            Hook("step_log", RUN_BATCH, self.log, "around"),
            # It sends the answers: who waits for the first one would look for its proof before it has returned.
            Hook("step_log", BATCH_RESULT, self.time_result, "around", warmed=False),
            Hook("step_log", RETRACT, self.count_retracted, "after", warmed=False),
        ]

    def close(self) -> None:
        """The job is done; another one has a log of its own."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def count_retracted(self, result: Any, *args: Any, **kwargs: Any) -> None:
        self._retracted += len(result[0])
        self._sent_back += _places(result[0])

    def log(self, original: Callable[..., Any], scheduler: Any, batch: Any, *args: Any, **kwargs: Any) -> Any:
        """SGLang's `run_batch`, noted down. On the CPU it computes the step; elsewhere it launches it."""
        # Parts of a model at a time (pdmux): the first one stands for all.
        in_parts = batch.forward_mode.is_split_prefill()
        again = in_parts and batch.split_index > 0
        line = None if again else self._describe(scheduler, batch)
        began = time.monotonic()
        result = original(scheduler, batch, *args, **kwargs)
        if line is not None and scheduler.device == "cpu":
            self._write(line, began, time.monotonic() - began)
        elif line is not None:
            stream = line["mode"] if line["parallel"] else ""
            self._times.launch(result, Launched(line, began, stream), in_parts=in_parts)
        elif again:
            self._times.go_on(result)
        return result

    def time_result(
        self, original: Callable[..., Any], scheduler: Any, batch: Any, result: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """SGLang's `process_batch_result`, which waits for the device; the step is written before it is answered."""
        if self._times.is_under_way(result):
            wait_for(scheduler, result)
            self._write(*self._times.finish(result))
        return original(scheduler, batch, result, *args, **kwargs)

    def _write(self, line: dict[str, Any], began: float, seconds: float) -> None:
        line |= {"step": self._steps, "time": began - self._began, "seconds": seconds}
        self._steps += 1
        assert self._file is not None, "opened when the line was made"
        # The last steps of a job must be there when its last answer is: the engine may be ended right behind it.
        self._file.write(orjson.dumps(line), at_once=line["waiting"] == 0)

    def _open(self, scheduler: Any) -> LogFile:
        if self._file is None:
            path = Path(self._path)
            self._file = LogFile(path.with_name(f"{_rank(scheduler)}{path.name}"))
        return self._file

    def _describe(self, scheduler: Any, batch: Any) -> dict[str, Any] | None:
        """The line of a step, but for its seconds; None for what is no step of the job."""
        if self._logs is None:
            self._logs = self._every_rank or _is_first_rank()
        if not batch.reqs or not self._logs:
            return None
        # Also for the warm-up, so that a file that cannot be written is told before the job begins.
        self._open(scheduler)
        if batch.reqs[0].rid == WARM_UP_ID:
            return None
        prefills = not batch.forward_mode.is_decode()
        beside = (getattr(batch, "decoding_reqs", None) or []) if prefills else batch.reqs
        filling = batch.reqs[: len(batch.reqs) - len(beside)] if prefills else []
        begun = [request for request in filling if request is not self._chunked]
        stats = batch.prefill_stats if prefills else None
        free = scheduler.token_to_kv_pool_allocator.available_size()
        evictable = scheduler.tree_cache.evictable_size()
        line = {
            "step": 0,
            "time": 0.0,
            "mode": "decode" if not prefills else "mixed" if beside else "prefill",
            "prefill_tokens": batch.extend_num_tokens - len(beside) if prefills else 0,
            "prefill_square": _square(batch, len(filling)),
            "recomputed_tokens": stats.reprocessed_log_input_tokens if stats else 0,
            "prefill_requests": len(filling),
            "hit_tokens": stats.log_hit_tokens - stats.reprocessed_log_hit_tokens if stats else 0,
            "admitted": _places(begun),
            "begun": len(begun),
            "decode_rows": len(beside),
            "context_tokens": _context(batch, beside),
            "kv_used": scheduler.max_total_num_tokens - free - evictable,
            "evictable": evictable,
            "waiting": len(scheduler.waiting_queue),
            "retracted": self._retracted,
            "sent_back": self._sent_back,
            "seconds": 0.0,
            "parallel": bool(getattr(scheduler, "enable_pdmux", False)),
            "budget": self._budget.tokens if self._budget is not None else None,
        }
        if prefills:
            self._chunked = batch.chunked_req
        self._sent_back = []
        return line


def _places(requests: list[Any]) -> list[int]:
    """Places in the plan of those that have one."""
    plans = [plan_of(request) for request in requests]
    return [plan.index for plan in plans if plan is not None]


def _square(batch: Any, count: int) -> int:
    """What attention of the first `count` requests of a batch, its prefill, looks at: sum of b^2 - a^2."""
    if not count:
        return 0
    chunks = zip((batch.prefix_lens or ())[:count], (batch.extend_lens or ())[:count], strict=False)
    return sum(int(added) * (int(added) + 2 * int(known)) for known, added in chunks)


def _context(batch: Any, rows: list[Any]) -> int:
    """Cached tokens that `rows`, the last of a batch, attend to. SGLang counts the token that is computed, too."""
    lengths = getattr(batch, "seq_lens_cpu", None)
    if not rows or lengths is None or len(lengths) < len(rows):
        return sum(len(request.origin_input_ids) + len(request.output_ids) for request in rows)
    return int(lengths[-len(rows) :].sum()) - len(rows)


def _is_first_rank() -> bool:
    """Whether this process is the first of those that share a model: all of them take the same steps."""
    parallel = load(PARALLEL)()
    return bool(parallel.tp_rank == 0 and parallel.pp_rank == 0)


def _rank(scheduler: Any) -> str:
    """How the file of this process begins: data-parallel ranks take steps of their own."""
    parallel = load(PARALLEL)()
    ranks = {"dp": data_rank(scheduler), "pp": parallel.pp_rank, "tp": parallel.tp_rank}
    return "".join(f"{name}{rank}-" for name, rank in ranks.items() if rank)
