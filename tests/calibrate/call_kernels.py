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

import flashinfer
import torch
from sglang.kernels.ops.attention import flash_attention
from torch.nn.functional import scaled_dot_product_attention

from blendrun.calibrate.kernels import KERNELS, Batch

BATCH = Batch(3, 64, 8, 2, 32, 16, torch.device("cpu"), torch.float32)


def reference(query: Any, keys: Any, values: Any, table: Any, lengths: Any) -> Any:
    """Attention over pages. keys, values: (pages, page, kv_heads, head_dim)."""
    rows = []
    for row, length in enumerate(lengths.tolist()):
        pages = table[row].long()
        own = [each[pages].flatten(0, 1)[:length].transpose(0, 1) for each in (keys, values)]
        rows.append(scaled_dot_product_attention(query[row][:, None], *own, enable_gqa=True)[:, 0])
    return torch.stack(rows)


def bound(function: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """What a call of it would be given, by name. Raises TypeError where it does not take that."""
    signature = inspect.signature(function)
    return lambda *given, **named: dict(signature.bind(*given, **named).arguments)


def of_triton() -> float:
    """How far off, at worst."""
    call = KERNELS["triton"](BATCH)
    found = call()
    given = dict(zip(call.__code__.co_freevars, (cell.cell_contents for cell in call.__closure__), strict=True))
    given = given["arguments"]
    keys, values = given["k_buffer"][:, None], given["v_buffer"][:, None]
    table = given["kv_indices"].view(BATCH.rows, -1)
    return float((found - reference(given["q"], keys, values, table, BATCH.all(BATCH.context))).abs().max())


def of_fa3() -> list[int]:
    """The shape of an answer by its documentation."""
    flash_attention.flash_attn_with_kvcache = bound(flash_attention.flash_attn_with_kvcache)
    given = KERNELS["fa3"](BATCH)()
    assert given["cu_seqlens_q"].tolist() == [0, 1, 2, 3]
    assert math.isclose(given["softmax_scale"], 32**-0.5)
    cache = given["k_cache"], given["v_cache"]
    return list(reference(given["q"], *cache, given["page_table"], given["cache_seqlens"]).shape)


def of_trtllm() -> list[int]:
    flashinfer.decode.trtllm_batch_decode_with_kv_cache = bound(flashinfer.decode.trtllm_batch_decode_with_kv_cache)
    given = KERNELS["trtllm_mha"](BATCH)()
    # (pages, kv_heads, page, head_dim), the layout that is the default.
    keys, values = (each.transpose(1, 2) for each in given["kv_cache"])
    return list(reference(given["query"], keys, values, given["block_tables"], given["seq_lens"]).shape)


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

    flashinfer.BatchDecodeWithPagedKVCacheWrapper = Bound
    given = KERNELS["flashinfer"](BATCH)()
    table = planned["indices"].view(BATCH.rows, -1)
    lengths = planned["indptr"].diff()
    return list(reference(given["q"], *given["paged_kv_cache"], table, lengths).shape)


def main() -> None:
    found = {"triton": of_triton(), "fa3": of_fa3(), "flashinfer": of_flashinfer(), "trtllm_mha": of_trtllm()}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
