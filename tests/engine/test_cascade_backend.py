"""The cascade among SGLang's attention backends, with a stand-in for FlashInfer's kernels, which need a GPU."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from blendrun.engine.base import EngineSettings
from blendrun.engine.cascade import register as registry
from blendrun.engine.cascade.register import CASCADE_VARIABLE
from blendrun.engine.scheduler import plugin
from blendrun.engine.settings import server_args, settings_environment
from blendrun.engine.shared_reads import CASCADE
from blendrun.errors import UsageError
from tests.engine.test_cascade_levels import HEADS, WIDTH, attend

pytestmark = pytest.mark.runtime

SLOTS = 4000


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """By the plug-in, as an engine that asks for it has it."""
    from sglang.srt.arg_groups import choices
    from sglang.srt.layers.attention import attention_registry

    monkeypatch.setenv(CASCADE_VARIABLE, "1")
    monkeypatch.delenv(plugin.SETTINGS_VARIABLE, raising=False)
    plugin.register()
    yield
    choices.ATTENTION_BACKEND_CHOICES.remove(CASCADE)
    del attention_registry.ATTENTION_BACKENDS[CASCADE]


def test_it_is_registered_once_and_only_where_asked_for(registered: None) -> None:
    from sglang.srt.arg_groups.choices import ATTENTION_BACKEND_CHOICES
    from sglang.srt.layers.attention.attention_registry import ATTENTION_BACKENDS

    registry.register()
    assert ATTENTION_BACKEND_CHOICES.count(CASCADE) == 1
    assert ATTENTION_BACKENDS[CASCADE] is registry.make


def test_only_an_engine_on_a_gpu_that_was_told_so_has_it(tmp_path: Path) -> None:
    asked = {"attention_backend": CASCADE}
    gpu = EngineSettings(str(tmp_path), "gpu", 1, server_args=asked)
    assert settings_environment(gpu)[CASCADE_VARIABLE] == "1"
    # A captured step knows nothing of groups.
    assert server_args(gpu)["cuda_graph_backend_decode"] == "disabled"
    plain, cpu = EngineSettings(str(tmp_path), "gpu", 1), EngineSettings(str(tmp_path), "cpu", 1, server_args=asked)
    assert "cuda_graph_backend_decode" not in server_args(plain)
    assert CASCADE_VARIABLE not in {*settings_environment(plain), *settings_environment(cpu)}
    with pytest.raises(UsageError, match="for GPUs"):
        server_args(cpu)


def test_models_with_latent_attention_are_refused() -> None:
    with pytest.raises(ValueError, match=f"{CASCADE}: models with latent attention"):
        registry.make(SimpleNamespace(use_mla_backend=True))


def test_what_sglang_and_flashinfer_call_is_called_so() -> None:
    from flashinfer.cascade import MultiLevelCascadeAttentionWrapper
    from sglang.srt.layers.attention.flashinfer_backend import FlashInferAttnBackend

    from blendrun.engine.cascade.backend import CascadeAttnBackend

    for name in ("init_forward_metadata", "forward_decode"):
        ours, theirs = (inspect.signature(getattr(each, name)) for each in (CascadeAttnBackend, FlashInferAttnBackend))
        assert list(ours.parameters) == list(theirs.parameters)
    planned = list(inspect.signature(MultiLevelCascadeAttentionWrapper.plan).parameters)
    assert planned[1:9] == [
        *("qo_indptr_arr", "paged_kv_indptr_arr", "paged_kv_indices_arr", "paged_kv_last_page_len"),
        *("num_qo_heads", "num_kv_heads", "head_dim", "page_size"),
    ]
    assert {"sm_scale", "logits_soft_cap", "q_data_type", "kv_data_type"} <= set(planned)
    made = list(inspect.signature(MultiLevelCascadeAttentionWrapper.__init__).parameters)
    assert made[1:4] == ["num_levels", "float_workspace_buffer", "kv_layout"]


class Kernels:
    """FlashInfer's wrapper in torch: the levels that were planned, merged by their logarithms."""

    def __init__(self) -> None:
        self.read = 0

    def plan(self, queries: Any, begins: Any, slots: Any, last: Any, *shape: Any, **options: Any) -> None:
        assert shape == (HEADS, HEADS, WIDTH, 1)
        self.levels = list(zip(queries, begins, slots, last, strict=True))

    def run(self, q: torch.Tensor, cache: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        keys, values = cache
        output, logs = torch.zeros_like(q), torch.full(q.shape[:2], -torch.inf)
        self.read = 0
        for queries, begins, slots, last in self.levels:
            for piece in range(len(last)):
                mine = slots[begins[piece] : begins[piece + 1]].long()
                self.read += len(mine)
                for query in range(int(queries[piece]), int(queries[piece + 1])):
                    one, log = attend(q[query], keys[mine], values[mine])
                    weight = torch.sigmoid(log - logs[query])[:, None]
                    output[query] = weight * one + (1 - weight) * output[query]
                    logs[query] = torch.logaddexp(logs[query], log)
        return output


class Decoding:
    """A batch that decodes on a backend without a GPU: SGLang's pool and table in plain tensors."""

    def __init__(self, lines: list[list[int]]) -> None:
        from blendrun.engine.cascade.backend import CascadeAttnBackend

        self.lines = lines
        self.table = torch.zeros((len(lines) + 3, 2000), dtype=torch.int32)
        self.rows = torch.arange(len(lines)) + 2
        self.cache = (torch.randn(SLOTS, HEADS, WIDTH), torch.randn(SLOTS, HEADS, WIDTH))
        self.layer = SimpleNamespace(
            layer_id=0, tp_q_head_num=HEADS, tp_k_head_num=HEADS, head_dim=WIDTH, scaling=WIDTH**-0.5, logit_cap=0.0,
            is_cross_attention=False, k_scale=None, v_scale=None,
        )  # fmt: skip
        backend = self.backend = object.__new__(CascadeAttnBackend)
        backend._layer, backend._table, backend._types = self.layer, self.table, {}
        backend._wrapper, backend._grouped, backend._last = Kernels(), None, None
        backend.decode_wrappers, backend.kv_cache_quant_method = [], SimpleNamespace(needs_global_scale=lambda: False)
        backend.token_to_kv_pool = SimpleNamespace(get_kv_buffer=lambda _: self.cache, set_kv_buffer=self.write)

    def write(self, layer: Any, where: Any, k: torch.Tensor, v: torch.Tensor, *scales: Any) -> None:
        for cache, new in zip(self.cache, (k, v), strict=True):
            cache[where.loc] = new

    def step(self) -> tuple[torch.Tensor, torch.Tensor]:
        """What the backend answers, and attention of each row by itself."""
        for row, line in zip(self.rows.tolist(), self.lines, strict=True):
            self.table[row, : len(line)] = torch.tensor(line, dtype=torch.int32)
        lengths = torch.tensor([len(line) for line in self.lines])
        batch = SimpleNamespace(
            forward_mode=SimpleNamespace(is_decode=lambda: True), spec_info=None, req_pool_indices=self.rows,
            seq_lens=lengths, seq_lens_cpu=lengths, out_cache_loc=torch.tensor([line[-1] for line in self.lines]),
            kv_loc_plan=None, out_cache_loc_is_physical=False,
        )  # fmt: skip
        self.backend.init_forward_metadata(batch)
        q, k, v = (torch.randn(len(self.lines), HEADS, WIDTH) for _ in range(3))
        found = self.backend.forward_decode(q, k, v, self.layer, batch)
        plain = []
        for query, line in zip(q, self.lines, strict=True):
            slots = torch.tensor(line)
            plain.append(attend(query, self.cache[0][slots], self.cache[1][slots])[0].flatten())
        return found, torch.stack(plain)


def test_steps_that_decode_answer_as_attention_of_each_row_does(monkeypatch: pytest.MonkeyPatch) -> None:
    from sglang.srt.mem_cache import memory_pool

    monkeypatch.setattr(
        memory_pool.KVWriteLoc,
        "for_layer",
        staticmethod(lambda batch, layer, **_: SimpleNamespace(loc=batch.out_cache_loc)),
    )
    torch.manual_seed(0)
    slots = iter(torch.randperm(SLOTS).tolist())
    document = [next(slots) for _ in range(300)]
    batch = Decoding([[*document, *(next(slots) for _ in range(length))] for length in (3, 9, 1)])
    batch.lines.insert(1, [next(slots) for _ in range(40)])
    batch.rows = torch.arange(4) + 2
    groups = []
    for _ in range(3):
        torch.testing.assert_close(*batch.step(), rtol=1e-4, atol=1e-5)
        groups.append(batch.backend._grouped)
        assert batch.backend._wrapper.read == sum(map(len, batch.lines)) - 2 * 300
        batch.lines = [[*line, next(slots)] for line in batch.lines]
    assert groups[0] is groups[1] is groups[2]
    # Another request has the first row of the table: its line is not the old one and a token.
    batch.lines[0] = [next(slots) for _ in range(len(batch.lines[0]) + 5)]
    torch.testing.assert_close(*batch.step(), rtol=1e-4, atol=1e-5)
    assert batch.backend._wrapper.read == sum(map(len, batch.lines)) - 300


def test_what_it_cannot_serve_is_said() -> None:
    from blendrun.engine.cascade.backend import refusal

    layer = SimpleNamespace(tp_q_head_num=8, tp_k_head_num=2, head_dim=64, scaling=0.1, logit_cap=0.0)
    backend = SimpleNamespace(num_wrappers=1, kv_index_translator=SimpleNamespace(reads_are_translated=False))
    runner = SimpleNamespace(kv_cache_dtype=torch.bfloat16, dtype=torch.bfloat16)
    assert refusal(backend, runner, [layer, layer]) is None
    other = SimpleNamespace(**{**vars(layer), "head_dim": 128})
    assert "differ" in (refusal(backend, runner, [layer, other]) or "")
    assert "no attention" in (refusal(backend, runner, []) or "")
    quantised = SimpleNamespace(kv_cache_dtype=torch.float8_e4m3fn, dtype=torch.bfloat16)
    assert "quantised" in (refusal(backend, quantised, [layer]) or "")
    windows = SimpleNamespace(**{**vars(backend), "num_wrappers": 2})
    assert "sliding window" in (refusal(windows, runner, [layer]) or "")
