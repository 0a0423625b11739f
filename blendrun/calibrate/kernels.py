"""Decode attention by the code that SGLang's backends and the CPU runtime call, for one layer and one batch of equal
contexts.

Each function makes the inputs and gives the call to time. The arguments are those of the backends' own `forward_decode`
(SGLang 0.5.23: layers/attention/), for plain keys and values without windows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from blendrun.engine.sglang_names import FLASH_ATTENTION, KV_SPLITS, TRITON_ATTENTION, load

Call = Callable[[], Any]
# SGLang's defaults (`triton_attention_num_kv_splits`, DEFAULT_WORKSPACE_SIZE_MB).
_KV_SPLITS, _WORKSPACE = 8, 512 << 20
# SGLang's name for the backend that the CPU runtime puts its own code behind.
LOOPS = "torch_native"
# Tables of fewer sequences are compiled as if for this many.
_LEAST_SEQUENCES = 256


@dataclass(frozen=True, slots=True)
class Batch:
    """rows: sequences of `context` tokens each. page: tokens of a page of the cache. device, kind: of all tensors."""

    rows: int
    context: int
    heads: int
    kv_heads: int
    head_dim: int
    page: int
    device: torch.device
    kind: torch.dtype

    @property
    def read(self) -> int:
        """Bytes of keys and values."""
        values = 2 * self.rows * self.context * self.kv_heads * self.head_dim
        return values * int(torch.finfo(self.kind).bits) // 8

    @property
    def scale(self) -> float:
        return float(self.head_dim**-0.5)

    def query(self) -> torch.Tensor:
        return self._random(self.rows, self.heads, self.head_dim)

    def cache(self, page: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values: (pages, page, kv_heads, head_dim), one sequence behind the other."""
        shape = (self.rows * self.context // page, page, self.kv_heads, self.head_dim)
        return self._random(*shape), self._random(*shape)

    def table(self, page: int) -> torch.Tensor:
        """Pages of each sequence, i32 (rows, pages of one)."""
        return self.count(self.rows * self.context // page).view(self.rows, -1)

    def count(self, end: int, step: int = 1) -> torch.Tensor:
        """0, step, ... below `end`, i32."""
        return torch.arange(0, end, step, dtype=torch.int32, device=self.device)

    def all(self, value: int) -> torch.Tensor:
        """i32 (rows,)."""
        return torch.full((self.rows,), value, dtype=torch.int32, device=self.device)

    def _random(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=self.device, dtype=self.kind)


def fa3(batch: Batch) -> Call:
    """FlashAttention 3."""
    decode = load(FLASH_ATTENTION)
    keys, values = batch.cache(batch.page)
    arguments = {
        "q": batch.query(),
        "k_cache": keys,
        "v_cache": values,
        "page_table": batch.table(batch.page),
        "cache_seqlens": batch.all(batch.context),
        "cu_seqlens_q": batch.count(batch.rows + 1),
        "max_seqlen_q": 1,
        "softmax_scale": batch.scale,
        "causal": True,
        "num_splits": 0,
        "ver": 3,
    }
    return lambda: decode(**arguments)


def flashinfer(batch: Batch) -> Call:
    """FlashInfer's decode, which SGLang gives every token as a page of its own."""
    import flashinfer

    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(
        torch.zeros(_WORKSPACE, dtype=torch.uint8, device=batch.device),
        "NHD",
        backend="fa2",
        # As SGLang chooses where values are of 16 bits.
        use_tensor_cores=batch.heads // batch.kv_heads >= 4,
    )
    tokens = batch.rows * batch.context
    wrapper.plan(
        batch.count(tokens + 1, batch.context),
        batch.count(tokens),
        batch.all(1),
        batch.heads,
        batch.kv_heads,
        batch.head_dim,
        1,
        q_data_type=batch.kind,
        kv_data_type=batch.kind,
    )
    query, cache = batch.query(), batch.cache(1)
    return lambda: wrapper.run(query, cache)


def trtllm_mha(batch: Batch) -> Call:
    """TensorRT-LLM's, out of FlashInfer."""
    from flashinfer.decode import trtllm_batch_decode_with_kv_cache

    page = max(batch.page, 16)
    keys, values = (each.permute(0, 2, 1, 3) for each in batch.cache(page))
    arguments = {
        "query": batch.query(),
        "kv_cache": (keys, values),
        "workspace_buffer": torch.zeros(_WORKSPACE, dtype=torch.uint8, device=batch.device),
        "block_tables": batch.table(page),
        "seq_lens": batch.all(batch.context),
        "max_seq_len": batch.context,
        "bmm1_scale": batch.scale,
        "bmm2_scale": 1.0,
        "out_dtype": batch.kind,
    }
    return lambda: trtllm_batch_decode_with_kv_cache(**arguments)


def triton(batch: Batch) -> Call:
    """SGLang's own kernel in Triton."""
    decode, get_splits = load(TRITON_ATTENTION), load(KV_SPLITS)
    keys, values = (each.flatten(0, 1) for each in batch.cache(1))
    query, lengths, splits = batch.query(), batch.all(batch.context), batch.all(_KV_SPLITS)
    table = max(_LEAST_SEQUENCES, 1 << (batch.rows - 1).bit_length())
    cores = torch.cuda.get_device_properties(0).multi_processor_count if batch.device.type == "cuda" else 1
    shape = (batch.rows, 1, batch.heads, batch.kv_heads, _KV_SPLITS, cores)
    get_splits[(1,)](splits, lengths, *shape, MAX_NUM_SEQ=table)
    tokens = batch.rows * batch.context
    answer = torch.empty_like(query)
    partial = torch.empty(batch.rows, batch.heads, _KV_SPLITS, batch.head_dim, device=batch.device)
    arguments = {
        "q": query,
        "k_buffer": keys,
        "v_buffer": values,
        "o": answer,
        "kv_indptr": batch.count(tokens + 1, batch.context),
        "kv_indices": batch.count(tokens),
        "attn_logits": partial,
        "attn_lse": torch.empty(batch.rows, batch.heads, _KV_SPLITS, device=batch.device),
        "num_kv_splits": splits,
        "max_kv_splits": _KV_SPLITS,
        "sm_scale": batch.scale,
        "k_scale": 1.0,
        "v_scale": 1.0,
    }

    def call() -> torch.Tensor:
        decode(**arguments)
        return answer

    return call


def takes_loops(batch: Batch) -> bool:
    """Whether the CPU runtime attends to such a batch with loops of its own; else it takes torch's."""
    from blendrun.engine.cpu.attention_step import fits

    return fits(*_of_loops(batch))


def _of_loops(batch: Batch) -> tuple[torch.Tensor, ...]:
    keys, values = (each.flatten(0, 1) for each in batch.cache(1))
    query = batch.query()
    return query, torch.empty_like(query), keys, values, batch.table(1)


def loops(batch: Batch) -> Call:
    """The CPU runtime's own."""
    from blendrun.engine.cpu import attention_plan
    from blendrun.engine.cpu.attention_step import Step

    query, output, keys, values, table = _of_loops(batch)
    requests, lengths = (each.long().numpy() for each in (batch.count(batch.rows), batch.all(batch.context)))
    plan = attention_plan.decode(table.numpy(), requests, lengths, batch.kv_heads, torch.get_num_threads())
    step = Step(plan, batch.heads, batch.kv_heads, batch.head_dim, batch.scale)
    return lambda: step.run(query, output, keys, values)


def plain(batch: Batch) -> Call:
    """torch's own attention on keys and values without pages."""
    # The query heads that share a key head are the rows of one product.
    query = batch.query().view(batch.rows, batch.kv_heads, batch.heads // batch.kv_heads, batch.head_dim)
    shape = (batch.rows, batch.context, batch.kv_heads, batch.head_dim)
    keys, values = (each.view(shape).transpose(1, 2).contiguous() for each in batch.cache(1))
    return lambda: scaled_dot_product_attention(query, keys, values)


# By SGLang's names of backends (`attention_backend`).
KERNELS: Mapping[str, Callable[[Batch], Call]] = {
    "fa3": fa3,
    "flashinfer": flashinfer,
    "trtllm_mha": trtllm_mha,
    "triton": triton,
    LOOPS: loops,
}
# Where the engine's own does not run, in this order.
STAND_INS = ("flashinfer", "triton")
