"""Calls the decode kernels as far as a CPU can: Triton's by its interpreter, the others' by their signatures.

Prints one JSON object: what each call came to, by the kernel's name. To be run with TRITON_INTERPRET=1.
"""

from __future__ import annotations

import inspect
import json
import math
import sys
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import flashinfer
import torch
from sglang.kernels.ops.attention import decode_attention, flash_attention
from torch.nn.functional import scaled_dot_product_attention

from blendrun.calibrate.kernels import KERNELS, Batch

BATCH = Batch(3, 64, 8, 2, 32, 16, torch.device("cpu"), torch.float32)


def reference(query: Any, cache: tuple[Any, Any], table: Any, lengths: Any) -> Any:
    """Attention over pages. cache: keys and values, (pages, page, kv_heads, head_dim)."""
    rows = []
    for row, length in enumerate(lengths.tolist()):
        pages = table[row].long()
        keys, values = (each[pages].flatten(0, 1)[:length].transpose(0, 1) for each in cache)
        rows.append(scaled_dot_product_attention(query[row][:, None], keys, values, enable_gqa=True)[:, 0])
    return torch.stack(rows)


def bound(function: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """What a call of it would be given, by name. Raises TypeError where it does not take that."""
    signature = inspect.signature(function)
    return lambda *given, **named: dict(signature.bind(*given, **named).arguments)


def of_triton() -> float:
    """How far off, at worst."""
    given: dict[str, Any] = {}
    real = decode_attention.decode_attention_fwd

    def called(**named: Any) -> None:
        given.update(named)
        real(**named)

    with patch.object(decode_attention, "decode_attention_fwd", called):
        found = KERNELS["triton"](BATCH)()
    cache = given["k_buffer"][:, None], given["v_buffer"][:, None]
    table = given["kv_indices"].view(BATCH.rows, -1)
    return float((found - reference(given["q"], cache, table, BATCH.all(BATCH.context))).abs().max())


def of_fa3() -> list[int]:
    """The shape of an answer by its documentation."""
    real = flash_attention.flash_attn_with_kvcache
    with patch.object(flash_attention, "flash_attn_with_kvcache", bound(real)):
        given = KERNELS["fa3"](BATCH)()
    assert given["cu_seqlens_q"].tolist() == [0, 1, 2, 3]
    assert math.isclose(given["softmax_scale"], 32**-0.5)
    cache = given["k_cache"], given["v_cache"]
    return list(reference(given["q"], cache, given["page_table"], given["cache_seqlens"]).shape)


def of_trtllm() -> list[int]:
    real = flashinfer.decode.trtllm_batch_decode_with_kv_cache
    with patch.object(flashinfer.decode, "trtllm_batch_decode_with_kv_cache", bound(real)):
        given = KERNELS["trtllm_mha"](BATCH)()
    # (pages, kv_heads, page, head_dim), the layout that is the default.
    keys, values = (each.transpose(1, 2) for each in given["kv_cache"])
    return list(reference(given["query"], (keys, values), given["block_tables"], given["seq_lens"]).shape)


def of_flashinfer() -> list[int]:
    real = flashinfer.BatchDecodeWithPagedKVCacheWrapper
    planned: dict[str, Any] = {}

    class Bound:
        def __init__(self, *given: Any, **named: Any) -> None:
            bound(real)(*given, **named)

        def plan(self, *given: Any, **named: Any) -> None:
            planned.update(bound(real.plan)(self, *given, **named))

        def run(self, *given: Any, **named: Any) -> dict[str, Any]:
            return bound(real.run)(self, *given, **named)

    with patch.object(flashinfer, "BatchDecodeWithPagedKVCacheWrapper", Bound):
        given = KERNELS["flashinfer"](BATCH)()
    table = planned["indices"].view(BATCH.rows, -1)
    return list(reference(given["q"], given["paged_kv_cache"], table, planned["indptr"].diff()).shape)


def main() -> None:
    found = {"triton": of_triton(), "fa3": of_fa3(), "flashinfer": of_flashinfer(), "trtllm_mha": of_trtllm()}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
