"""SGLang's FlashInfer backend, with a cascade of two levels in steps that decode rows of common prefixes.

Only where a step decodes and does nothing else, and without CUDA graphs: a graph is captured for a number of rows, not
for their groups. All else is SGLang's own code. No GPU has run this yet (docs/gpu.md#what-only-a-gpu-can-show).
"""

from __future__ import annotations

from typing import Any

import torch
from flashinfer.cascade import MultiLevelCascadeAttentionWrapper
from sglang.srt.layers.attention.flashinfer_backend import DecodeMetadata, FlashInferAttnBackend
from sglang.srt.layers.radix_attention import RadixAttention
from sglang.srt.mem_cache.memory_pool import KVWriteLoc

from blendrun.engine.cascade.groups import groups_of
from blendrun.engine.cascade.levels import Grouped, levels_of
from blendrun.engine.shared_reads import CASCADE, LEAST_SHARED

# Groups that spare less than this share of a step's reads are not worth a second level and its merging: a guess, until
# a GPU has shown where the border is.
LEAST_SPARED = 0.2


class CascadeAttnBackend(FlashInferAttnBackend):  # type: ignore[misc]  # SGLang's class is untyped here
    """Raises ValueError for a model or an engine that the cascade cannot serve."""

    def __init__(self, runner: Any) -> None:
        super().__init__(runner, init_new_workspace=runner.init_new_workspace)
        layers = [layer for layer in runner.model.modules() if isinstance(layer, RadixAttention)]
        if (why := refusal(self, runner, layers)) is not None:
            raise ValueError(f"attention_backend={CASCADE}: {why}")
        self._layer = layers[0]
        self._table = runner.req_to_token_pool.req_to_token
        self._types = {"q_data_type": runner.dtype, "kv_data_type": self.flashinfer_kv_cache_dtype}
        self._wrapper = MultiLevelCascadeAttentionWrapper(2, self.workspace_buffer, "NHD")
        # The groups of the step that is being run; those of the last one, with its rows and their lengths.
        self._grouped: Grouped | None = None
        self._last: tuple[torch.Tensor, torch.Tensor, Grouped | None] | None = None

    def init_forward_metadata(self, forward_batch: Any) -> None:
        self._grouped = None
        if forward_batch.forward_mode.is_decode() and forward_batch.spec_info is None:
            self._grouped = self._groups(forward_batch)
        if self._grouped is None:
            super().init_forward_metadata(forward_batch)
            return
        levels = levels_of(
            self._grouped,
            self._table,
            forward_batch.req_pool_indices.long(),
            forward_batch.seq_lens.long(),
        )
        self._wrapper.plan(
            [level.queries for level in levels],
            [level.slots_begin for level in levels],
            [level.slots for level in levels],
            [level.last for level in levels],
            self._layer.tp_q_head_num,
            self._layer.tp_k_head_num,
            self._layer.head_dim,
            1,
            sm_scale=self._layer.scaling,
            logits_soft_cap=self._layer.logit_cap or None,
            **self._types,
        )
        self.forward_metadata = DecodeMetadata(self.decode_wrappers, swa_out_cache_loc=None)

    def forward_decode(
        self, q: Any, k: Any, v: Any, layer: Any, forward_batch: Any, save_kv_cache: bool = True
    ) -> torch.Tensor:
        if self._grouped is None:
            found: torch.Tensor = super().forward_decode(q, k, v, layer, forward_batch, save_kv_cache)
            return found
        if k is not None and save_kv_cache:
            where = KVWriteLoc.for_layer(forward_batch, layer, swa_loc=None)
            self.token_to_kv_pool.set_kv_buffer(layer, where, k, v, *self._kv_write_scales(layer))
        queries = q.view(-1, layer.tp_q_head_num, layer.head_dim)[self._grouped.rows]
        output = self._wrapper.run(queries, self.token_to_kv_pool.get_kv_buffer(layer.layer_id))
        answered: torch.Tensor = output[self._grouped.place].view(-1, layer.tp_q_head_num * layer.head_dim)
        return answered

    def _groups(self, forward_batch: Any) -> Grouped | None:
        """Kept from step to step as long as the same rows go on; None where they share too little."""
        rows = forward_batch.req_pool_indices.cpu()
        lengths = forward_batch.seq_lens_cpu
        lengths = forward_batch.seq_lens.cpu() if lengths is None else lengths.cpu()
        if self._last is not None:
            last_rows, last_lengths, grouped = self._last
            # A row of the table that another request has got meanwhile has not just grown by a token.
            if torch.equal(rows, last_rows) and torch.equal(lengths, last_lengths + 1):
                self._last = (rows, lengths, grouped)
                return grouped
        slots = self._table[forward_batch.req_pool_indices.long(), : int(lengths.max())].cpu().numpy()
        found = groups_of([line[:length] for line, length in zip(slots, lengths.tolist(), strict=True)], LEAST_SHARED)
        worth = found.spared >= LEAST_SPARED * int(lengths.sum())
        grouped = Grouped.of(found, self._table.device) if worth else None
        self._last = (rows, lengths, grouped)
        return grouped


def refusal(backend: Any, runner: Any, layers: list[Any]) -> str | None:
    """Why the cascade cannot serve; None where it can. backend: SGLang's part of it, made. layers: of attention."""
    kinds = {(each.tp_q_head_num, each.tp_k_head_num, each.head_dim, each.scaling, each.logit_cap) for each in layers}
    reasons = {
        "the model has no attention of SGLang's own kind": not layers,
        "its layers differ in heads, scaling or caps": len(kinds) > 1,
        "layers with a sliding window or cross attention read no common prefix": backend.num_wrappers != 1,
        "it reads no quantised cache": runner.kv_cache_dtype != runner.dtype,
        "it reads no cache whose slots are translated": bool(backend.kv_index_translator.reads_are_translated),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)
