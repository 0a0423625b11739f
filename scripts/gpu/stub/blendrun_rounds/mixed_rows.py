"""Triton's attention in a mixed step: rows with one new token go through the decode kernel.

SGLang 0.5.23 runs a mixed step as one extend: a row that decodes fills one of 128 query rows of a program and reads its
keys once for every query head. The rows at a batch's end that have one new token, which is what decodes, attend here as
in a decode step; all others as they did. Asked for with BLENDRUN_MIXED_ROWS=1, for measuring what mixed steps are worth
on a machine that has no other attention. The first use computes both ways and says in the log how far they are apart.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

_BACKEND = "sglang.srt.layers.attention.triton_backend.TritonAttnBackend"
# Fewer are not worth two launches.
LEAST_ROWS = 8
# bfloat16 has 8 bits: answers of values around 1 differ by this much at most.
_NEAR = 0.02

logger = logging.getLogger(__name__)
_compared = False


def register() -> None:
    """Entry point of group `sglang.srt.plugins`. Does nothing unless asked for."""
    if os.environ.get("BLENDRUN_MIXED_ROWS") != "1":
        return
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    HookRegistry.register(f"{_BACKEND}.init_forward_metadata", note_rows, HookType.AROUND)
    HookRegistry.register(f"{_BACKEND}._forward_extend_kernel", attend, HookType.AROUND)


@dataclass(frozen=True, slots=True)
class Rows:
    """The last `count` rows of a batch. start: their first token in the batch. others: new tokens of each other row.

    indptr, indices: where the KV of each lies, its new token included. metadata: of the backend, for this batch.
    """

    count: int
    start: int
    others: list[int]
    indptr: torch.Tensor
    indices: torch.Tensor
    splits: torch.Tensor
    metadata: object


def last_rows(lengths: list[int]) -> int:
    """How many rows at the end have one new token; 0 where they are too few, or all rows are such."""
    count = 0
    while count < len(lengths) and lengths[-1 - count] == 1:
        count += 1
    return count if LEAST_ROWS <= count < len(lengths) else 0


def slots_of(
    table: torch.Tensor, pool_indices: torch.Tensor, lengths: torch.Tensor, total: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """indptr (rows + 1,) and slots (total,) of the first `lengths` tokens of each row of `table`; never waits for the
    device."""
    indptr = torch.zeros(len(lengths) + 1, dtype=torch.int32, device=table.device)
    indptr[1:] = torch.cumsum(lengths, dim=0)
    row = torch.repeat_interleave(torch.arange(len(lengths), device=table.device), lengths, output_size=total)
    place = torch.arange(total, device=table.device) - indptr[row]
    return indptr, table[pool_indices[row], place].to(torch.int64)


def note_rows(original: Callable[..., None], backend: Any, batch: Any) -> None:
    """Around `init_forward_metadata`, once a step."""
    original(backend, batch)
    backend.blendrun_rows = None
    lengths = batch.extend_seq_lens_cpu
    if not batch.forward_mode.is_mixed() or lengths is None or (count := last_rows(list(lengths))) == 0:
        return
    ends = batch.seq_lens[-count:]
    total = sum(list(batch.extend_prefix_lens_cpu)[-count:]) + count
    indptr, indices = slots_of(backend.req_to_token, batch.req_pool_indices[-count:], ends, total)
    splits = torch.empty(count, dtype=torch.int32, device=ends.device)
    backend.get_num_kv_splits(splits, ends, torch.zeros(1, dtype=torch.int32, device=ends.device))
    others = list(lengths)[:-count]
    backend.blendrun_rows = Rows(count, sum(others), others, indptr, indices, splits, backend.forward_metadata)


def attend(
    original: Callable[..., None],
    backend: Any,
    layer: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    output: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    query_indptr: torch.Tensor,
    indptr: torch.Tensor,
    indices: torch.Tensor,
    mask: torch.Tensor | None,
    causal: bool,
    mask_indptr: torch.Tensor | None,
    longest: int,
    *more: Any,
    **named: Any,
) -> None:
    """Around the extend kernel of one layer; shapes as in `extend_attention_fwd`."""
    rows: Rows | None = getattr(backend, "blendrun_rows", None)
    given = (query, key, value, output, keys, values, query_indptr, indptr, indices, mask, causal, mask_indptr, longest)
    if rows is None or rows.metadata is not backend.forward_metadata or not _plain(mask, causal, more, named):
        original(backend, layer, *given, *more, **named)
        return
    whole = _whole(original, backend, layer, given, more, named)
    kept = len(rows.others) + 1
    parts = (query[: rows.start], key[: rows.start], value[: rows.start], output[: rows.start])
    places = (query_indptr[:kept], indptr[:kept], indices, None, causal, None, max(rows.others))
    named["extend_seq_lens_cpu"] = rows.others
    original(backend, layer, *parts, keys, values, *places, *more, **named)
    _decode(backend, layer, rows, query, output, keys, values)
    if whole is not None:
        _compare(whole, output, rows)


def _plain(mask: object, causal: bool, more: tuple[Any, ...], named: dict[str, Any]) -> bool:
    """Whether a decode kernel does the same: more begins with the scales of keys and values."""
    return (
        mask is None
        and causal
        and tuple(more[:2]) == (1.0, 1.0)
        and named.get("sinks") is None
        and named.get("sliding_window_size", -1) == -1
        and named.get("score_mod") is None
        and named.get("page_size", 1) == 1
    )


def _decode(
    backend: Any, layer: Any, rows: Rows, query: torch.Tensor, output: torch.Tensor, keys: Any, values: Any
) -> None:
    end = rows.start + rows.count
    heads, size = query.shape[1], output.shape[2]
    shape = (rows.count, heads, backend.max_kv_splits)
    backend.decode_attention_fwd(
        query[rows.start : end],
        keys,
        values,
        output[rows.start : end],
        rows.indptr,
        rows.indices,
        torch.empty(*shape, size, dtype=torch.float32, device=query.device),
        torch.empty(shape, dtype=torch.float32, device=query.device),
        rows.splits,
        backend.max_kv_splits,
        layer.scaling,
        1.0,
        1.0,
        logit_cap=0.0,
    )


def _whole(
    original: Callable[..., None],
    backend: Any,
    layer: Any,
    given: tuple[Any, ...],
    more: tuple[Any, ...],
    named: dict[str, Any],
) -> torch.Tensor | None:
    """The first time: what the extend kernel says of all rows."""
    if _compared:
        return None
    output = torch.empty_like(given[3])
    original(backend, layer, *given[:3], output, *given[4:], *more, **named)
    return output


def _compare(whole: torch.Tensor, output: torch.Tensor, rows: Rows) -> None:
    global _compared
    _compared = True
    end = rows.start + rows.count
    apart = float((whole[:end].float() - output[:end].float()).abs().max())
    logger.warning("mixed rows: %d of one token by the decode kernel, at most %.5f apart", rows.count, apart)
    if not apart <= _NEAR:
        raise ValueError(f"mixed rows: the decode kernel is {apart} off: run without BLENDRUN_MIXED_ROWS")
