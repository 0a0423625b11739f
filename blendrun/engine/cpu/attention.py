"""Attention on the CPU: a prefix hit saves time, decode rows are attended together, and keys are read where they lie.

Stock `torch_native` copies the keys of every request out of the pool, once for each query head in decode, and pads the
query of every extend to the whole sequence: a request with 1,000 cached and 10 new tokens pays for 1,010 query rows.

In float32 compiled loops do both (`attention_loop`). What they do not take (`attention_step.fits`) goes through torch:
extend for the new rows only, under a causal mask aligned to the lower right corner; decode for requests of like length
together, the query heads that share a key head as the rows of one product.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import scaled_dot_product_attention

from blendrun.engine.cpu import adapters, attention_plan, layers, products
from blendrun.engine.cpu.attention_plan import Plan
from blendrun.engine.cpu.attention_step import Step, fits
from blendrun.engine.settings import CPU_PLATFORM
from blendrun.engine.sglang_names import BEGIN_ATTENTION, DECODE_ATTENTION, EXTEND_ATTENTION

# Requests attended together may differ in length by this factor: more pads more, less makes more calls.
_LENGTH_SPREAD = 1.5
# A hook whose target moved is only logged by SGLang; the first call leaves this file, so that blendrun can tell.
PROOF_VARIABLE = "BLENDRUN_ATTENTION_PROOF"


def register() -> None:
    """Entry point of group `sglang.srt.plugins`. Does nothing unless blendrun's CPU platform is selected."""
    if os.environ.get("SGLANG_PLATFORM") != CPU_PLATFORM:
        return
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    HookRegistry.register(BEGIN_ATTENTION, begin, HookType.BEFORE)
    HookRegistry.register(EXTEND_ATTENTION, extend_new_rows, HookType.AROUND)
    HookRegistry.register(DECODE_ATTENTION, decode_together, HookType.AROUND)
    for target, hook in (products.hooks() | layers.hooks() | adapters.hooks()).items():
        HookRegistry.register(target, hook, HookType.AROUND)


def extend_new_rows(
    original: Callable[..., torch.Tensor],
    backend: Any,
    query: torch.Tensor,
    output: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    req_to_token: torch.Tensor,
    req_pool_indices: torch.Tensor,
    seq_lens: torch.Tensor,
    extend_prefix_lens: torch.Tensor,
    extend_seq_lens: torch.Tensor,
    encoder_lens: torch.Tensor | None = None,
    scaling: float | None = None,
    enable_gqa: bool = False,
    causal: bool = False,
    is_cross_attn: bool = False,
    sliding_window_size: int | None = None,
) -> torch.Tensor:
    """Decoder self-attention of one extend batch; what else there is goes to SGLang's own code.

    query, output: (tokens, heads, head size), the new tokens of all sequences one after another.
    k_cache, v_cache: (pool slots, KV heads, head size); req_to_token: (requests, context) slot of each token.
    seq_lens, extend_prefix_lens, extend_seq_lens: (sequences,) whole, cached and new lengths in tokens.
    """
    _leave_proof()
    window = sliding_window_size is not None and sliding_window_size > -1
    if encoder_lens is not None or is_cross_attn or window or not causal:
        return original(
            backend, query, output, k_cache, v_cache, req_to_token, req_pool_indices, seq_lens,
            extend_prefix_lens, extend_seq_lens, encoder_lens, scaling=scaling, enable_gqa=enable_gqa,
            causal=causal, is_cross_attn=is_cross_attn, sliding_window_size=sliding_window_size,
        )  # fmt: skip

    if fits(query, output, k_cache, v_cache, req_to_token):
        table = req_to_token.numpy()

        def prefill() -> Plan:
            requests, lengths, new = _integers(req_pool_indices, seq_lens, extend_seq_lens)
            return attention_plan.prefill(table, requests, lengths, new, k_cache.shape[1])

        _step(backend, seq_lens, prefill, query, k_cache, scaling).run(query, output, k_cache, v_cache)
        return output

    rows = zip(req_pool_indices.tolist(), seq_lens.tolist(), extend_seq_lens.tolist(), strict=True)
    start = 0
    for pool_index, length, new in rows:
        slots = req_to_token[pool_index, :length]
        rows_now, mask = query[start : start + new], None
        # Under a mask every pair is computed, in causal attention half of the square: where less than half of the
        # prompt is cached, all of its rows cost less than the new ones under a mask.
        whole = 1 < new < length <= 2 * new
        if whole:
            rows_now = torch.cat((rows_now.new_zeros(length - new, *rows_now.shape[1:]), rows_now))
        elif 1 < new < length:
            # Row i is token `length - new + i` of the sequence and sees itself and all before it.
            mask = torch.ones(new, length, dtype=torch.bool).tril(length - new)
        attended = scaled_dot_product_attention(
            rows_now.movedim(0, 1).unsqueeze(0),
            k_cache.index_select(0, slots).to(query.dtype).movedim(0, 1).unsqueeze(0),
            v_cache.index_select(0, slots).to(query.dtype).movedim(0, 1).unsqueeze(0),
            attn_mask=mask,
            is_causal=whole or 1 < new == length,
            enable_gqa=enable_gqa,
            scale=scaling,
        )
        output[start : start + new] = attended.squeeze(0).movedim(1, 0)[-new:]
        start += new
    return output


def decode_together(
    original: Callable[..., torch.Tensor],
    backend: Any,
    query: torch.Tensor,
    output: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    req_to_token: torch.Tensor,
    req_pool_indices: torch.Tensor,
    seq_lens: torch.Tensor,
    encoder_lens: torch.Tensor | None = None,
    scaling: float | None = None,
    enable_gqa: bool = False,
    causal: bool = False,
    is_cross_attn: bool = False,
    sliding_window_size: int | None = None,
) -> torch.Tensor:
    """One new token a request; shapes as in `extend_new_rows`, with query and output (requests, heads, head size)."""
    window = sliding_window_size is not None and sliding_window_size > -1
    if encoder_lens is not None or is_cross_attn or window:
        return original(
            backend, query, output, k_cache, v_cache, req_to_token, req_pool_indices, seq_lens, encoder_lens,
            scaling=scaling, enable_gqa=enable_gqa, causal=causal, is_cross_attn=is_cross_attn,
            sliding_window_size=sliding_window_size,
        )  # fmt: skip

    if fits(query, output, k_cache, v_cache, req_to_token):
        table = req_to_token.numpy()

        def decode() -> Plan:
            requests, lengths = _integers(req_pool_indices, seq_lens)
            return attention_plan.decode(table, requests, lengths, k_cache.shape[1], torch.get_num_threads())

        _step(backend, seq_lens, decode, query, k_cache, scaling).run(query, output, k_cache, v_cache)
        return output

    kv_heads, heads_each = k_cache.shape[1], query.shape[1] // k_cache.shape[1]
    for rows in _alike(seq_lens.tolist()):
        picked = torch.tensor(rows)
        lengths = seq_lens[picked]
        longest = int(lengths.max())
        slots = req_to_token[req_pool_indices[picked], :longest].reshape(-1)
        keys = k_cache.index_select(0, slots).view(len(rows), longest, kv_heads, -1).transpose(1, 2)
        values = v_cache.index_select(0, slots).view(len(rows), longest, kv_heads, -1).transpose(1, 2)
        # What lies behind a request's end is another's, or nothing.
        inside = (torch.arange(longest) < lengths.unsqueeze(1)).view(len(rows), 1, 1, longest)
        attended = scaled_dot_product_attention(
            query[picked].view(len(rows), kv_heads, heads_each, -1),
            keys.to(query.dtype),
            values.to(query.dtype),
            attn_mask=inside.expand(len(rows), 1, heads_each, longest),
            scale=scaling,
        )
        output[picked] = attended.reshape(len(rows), query.shape[1], -1)
    return output


def _integers(*tensors: torch.Tensor) -> Iterator[NDArray[np.int64]]:
    return (each.numpy().astype(np.int64) for each in tensors)


def begin(backend: Any, *_: Any, **__: Any) -> None:
    """A new step: what was planned for the last is not for this one."""
    backend.blendrun_step = None


def _step(
    backend: Any,
    seq_lens: torch.Tensor,
    plan: Callable[[], Plan],
    query: torch.Tensor,
    k_cache: torch.Tensor,
    scaling: float | None,
) -> Step:
    """That of this forward pass, kept with the tensor of its lengths: made by the first of its layers."""
    shape = (query.shape[1], k_cache.shape[1], query.shape[2])
    scale = query.shape[2] ** -0.5 if scaling is None else scaling
    lengths, step = getattr(backend, "blendrun_step", None) or (None, None)
    if step is None or lengths is not seq_lens or step.shape != shape or step.scale != scale:
        step = Step(plan(), *shape, scale)
        # Where nobody tells of new steps, nothing is kept.
        if hasattr(backend, "blendrun_step"):
            backend.blendrun_step = (seq_lens, step)
    return step


def _alike(lengths: list[int]) -> list[list[int]]:
    """Places of `lengths` in groups whose longest is at most _LENGTH_SPREAD times the shortest."""
    groups: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        if not groups or lengths[place] > _LENGTH_SPREAD * lengths[groups[-1][0]]:
            groups.append([])
        groups[-1].append(place)
    return groups


_proof_left = False


def _leave_proof() -> None:
    global _proof_left
    if not _proof_left:
        _proof_left = True
        if path := os.environ.get(PROOF_VARIABLE):
            Path(path).touch()
