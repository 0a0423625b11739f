"""What older versions of SGLang call otherwise, asked for in the newest version's words."""

from __future__ import annotations

from functools import cache
from typing import Any

from blendrun.engine.sglang_names import (
    BACKENDS,
    OLDER_BACKENDS,
    OLDER_SETTLED,
    PARALLEL,
    PORT_ARGS,
    PUBLISH,
    SETTLED,
    SINCE,
    SPAWN_RANKS,
    load,
    reaches,
)


def prefix_len(request: Any) -> int:
    """Tokens of a request's prompt that the cache had. Before 0.5.22 the request holds their slots instead."""
    try:
        return int(request.prefix_len)
    except AttributeError:
        return len(request.prefix_indices)


def extend_end(request: Any) -> int:
    """Tokens of a request that are computed when the step that is being built has run."""
    try:
        return int(request.extend_end)
    except AttributeError:
        # Before 0.5.22.
        return int(request.extend_range.end)


def memory_budget(adder: Any) -> Any:
    """The account of an adder's tokens: `total_offset` (may be set), `current_offset`, `remaining_current`."""
    try:
        return adder.memory_budget
    except AttributeError:
        return _MemoryBudget(adder)


def data_rank(scheduler: Any) -> int | None:
    """Which of several schedulers side by side (`dp_size`) it is, from 0; None where it is the only one."""
    parallel = load(PARALLEL)() if reaches("0.5.21") else scheduler.ps
    rank: int | None = parallel.dp_rank
    return rank


@cache
def steps_behind_end() -> int:
    """Steps that a row runs on when it has its last token, and keeps its tokens of the pool.

    Before 0.5.22 SGLang launches one before it has looked at the result of the last, also where the length tells.
    """
    return 0 if reaches("0.5.22") else 1


def free_tokens(scheduler: Any) -> int:
    """Tokens of a scheduler's pool that nothing runs on."""
    pool, tree = scheduler.token_to_kv_pool_allocator, scheduler.tree_cache
    if reaches("0.5.21"):
        return int(pool.create_prefill_budget(tree).remaining_current)
    return int(pool.available_size() + tree.evictable_size())


def settled(arguments: Any) -> tuple[Any, str]:
    """What came of the `ServerArgs` of an engine that is up, as attributes, and the attention backend that decodes.

    Raises ImportError or AttributeError where this SGLang keeps them elsewhere.
    """
    newer = reaches(SINCE[SETTLED])
    view = load(SETTLED if newer else OLDER_SETTLED)(arguments)
    _, decode = load(BACKENDS if newer else OLDER_BACKENDS)(view)
    return view, str(decode)


def new_scheduler(made_by: Any, arguments: Any) -> Any:
    """A scheduler, the only one of its engine. made_by: SGLang's class or one below it. arguments: `ServerArgs`."""
    publish, ports = load(PUBLISH), load(PORT_ARGS).init_new(arguments)
    if reaches(SINCE[SPAWN_RANKS]):
        publish(arguments, role="scheduler", ranks=load(SPAWN_RANKS)(world_rank=0, dp_rank=None, gpu_id=0))
        return made_by(arguments, ports)
    publish(arguments, role="scheduler")
    ranks = dict.fromkeys(("gpu_id", "tp_rank", "moe_ep_rank", "pp_rank", "attn_cp_rank", "moe_dp_rank"), 0)
    return made_by(arguments, ports, **ranks, dp_rank=None)


def slot(request: Any) -> int:
    """The row of SGLang's table of sequences that a running request has."""
    try:
        return int(request.kv.req_pool_idx)
    except AttributeError:
        # Before 0.5.18.
        return int(request.req_pool_idx)


class _MemoryBudget:
    """What an adder keeps itself before 0.5.21."""

    def __init__(self, adder: Any) -> None:
        self._adder = adder

    @property
    def total_offset(self) -> int:
        return int(self._adder.rem_total_token_offset)

    @total_offset.setter
    def total_offset(self, tokens: int) -> None:
        self._adder.rem_total_token_offset = tokens

    @property
    def current_offset(self) -> int:
        return int(self._adder.cur_rem_token_offset)

    @property
    def remaining_current(self) -> int:
        return int(self._adder.cur_rem_tokens)
