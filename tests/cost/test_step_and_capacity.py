"""The tokens of a step, and the room for cache beside the weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blendrun.cost.capacity import EngineLimits, kv_pool
from blendrun.cost.hardware import list_hardware, load_hardware, machine
from blendrun.cost.reserve import engine_chunk, graph_size
from blendrun.cost.step import RESIDENT_SHARE, step_budget, weight_bound_tokens, weight_bytes
from blendrun.errors import UsageError
from blendrun.models.cards import list_aliases, load_card

LLAMA = load_card("llama-3-8b")


def test_step_budget_is_rounded_down_to_tiles() -> None:
    # docs/paper.md#the-step-budget: 60 GB of cache, 726 tokens.
    tokens, kv_bytes = 726.0, 60e9
    assert step_budget(tokens, kv_bytes, 60e9) == 640
    assert step_budget(tokens, kv_bytes, 60e9, resident=RESIDENT_SHARE) == 384


@given(tokens=st.floats(0, 1e15), kv_bytes=st.floats(0, 1e20), pool=st.floats(0, 1e13))
def test_step_budget_is_always_a_usable_number_of_tiles(tokens: float, kv_bytes: float, pool: float) -> None:
    budget = step_budget(tokens, kv_bytes, pool)
    assert 128 <= budget <= 16384
    assert budget % 128 == 0


def test_a_job_without_decoding_takes_the_largest_step() -> None:
    assert step_budget(1e9, 0.0, 60e9) == 16384


def test_weights_are_the_layers_and_the_head() -> None:
    assert weight_bytes(LLAMA, 2, 1) == 2 * (LLAMA.parameters_total - LLAMA.embedding_parameters)
    assert weight_bytes(LLAMA, 2, 1) == weight_bytes(LLAMA, 2, 1000)


def test_a_mixture_of_experts_reads_the_experts_that_are_chosen() -> None:
    mixtral = load_card("mixtral-8x7b")
    one, few, many = (weight_bytes(mixtral, 2, tokens) for tokens in (1, 4, 10_000))
    assert one == pytest.approx(2 * (mixtral.layer_parameters_active + mixtral.head_parameters))
    assert one < few < many
    assert many == pytest.approx(2 * (mixtral.layer_parameters_total + mixtral.head_parameters))
    assert weight_bytes(mixtral, 2, 0) == one


@pytest.mark.parametrize(("hardware", "tokens"), [("a100-80g", 153), ("h100-sxm", 295)])
def test_tokens_below_which_weights_dominate(hardware: str, tokens: int) -> None:
    assert round(weight_bound_tokens(LLAMA, machine(load_hardware(hardware), rates="peak"))) == tokens


def test_sparse_models_need_larger_steps_to_be_bound_by_compute() -> None:
    a100 = machine(load_hardware("a100-80g"))
    ratio = weight_bound_tokens(load_card("mixtral-8x7b"), a100) / weight_bound_tokens(LLAMA, a100)
    assert ratio == pytest.approx(46.4 / 12.6, rel=0.02)


def test_a_model_that_fits_gets_a_replica_on_each_device() -> None:
    pool = kv_pool(LLAMA, machine(load_hardware("a100-80g"), gpus=4))
    assert (pool.replicas, pool.gpus, pool.token_bytes) == (4, 1, 131072)
    # 0.83 of the 84.6 GB that are free, less 16.1 GB of weights. The paper leaves 60 of 80 GB.
    assert pool.fraction == 0.83
    assert pool.bytes == pytest.approx(0.83 * 84.6e9 - 16.06e9, rel=0.001)
    assert pool.tokens == kv_pool(LLAMA, machine(load_hardware("a100-80g"))).tokens


def test_a_model_that_does_not_fit_one_device_takes_all_together() -> None:
    pool = kv_pool(load_card("llama-3.3-70b"), machine(load_hardware("a100-80g"), gpus=8))
    assert (pool.replicas, pool.gpus) == (1, 8)
    assert pool.bytes == pytest.approx(pool.fraction * 8 * 83.5e9 - 141.1e9, rel=0.001)


def test_a_model_that_does_not_fit_at_all_says_what_is_missing_and_what_helps() -> None:
    with pytest.raises(
        UsageError, match=r"Llama 3\.3 70B.* GB are missing; use 8 of them \(--tp 8\) or a smaller model"
    ):
        kv_pool(load_card("llama-3.3-70b"), machine(load_hardware("a100-40g")))
    with pytest.raises(UsageError, match=r"missing; use --engine-arg chunked_prefill_size=2048 or 2 of them"):
        kv_pool(LLAMA, machine(load_hardware("l4")))
    with pytest.raises(UsageError, match=r"missing; use a smaller model$"):
        kv_pool(load_card("llama-3.3-70b"), machine(load_hardware("cpu")))


def test_what_is_advised_fits() -> None:
    needed = machine(load_hardware("a100-40g"), gpus=8)
    assert kv_pool(load_card("llama-3.3-70b"), needed).gpus == 8
    small = kv_pool(LLAMA, machine(load_hardware("l4")), EngineLimits(chunk=2048))
    assert small.tokens > 2048


class TestDevicesOfAnEngine:
    @pytest.mark.parametrize("alias", ["llama-3.3-70b", "qwen2.5-72b"])
    def test_a_large_model_fits_four_devices(self, alias: str) -> None:
        pool = kv_pool(load_card(alias), machine(load_hardware("h100-sxm"), 4), EngineLimits(tensor=4))
        assert (pool.replicas, pool.gpus) == (1, 4)
        assert pool.tokens > 300_000

    def test_a_model_that_would_fit_one_has_all_that_it_was_given(self) -> None:
        on = machine(load_hardware("h100-sxm"), 4)
        two, one = kv_pool(LLAMA, on, EngineLimits(tensor=2)), kv_pool(LLAMA, on)
        assert [(each.replicas, each.gpus) for each in (two, one)] == [(2, 2), (4, 1)]
        # Twice the memory beside one copy of the weights.
        assert 2.2 * one.tokens < two.tokens < 2.4 * one.tokens

    def test_stages_of_a_pipeline_hold_a_layer_each_once(self) -> None:
        split, piped = (
            kv_pool(replace(LLAMA, kv_heads=1), machine(load_hardware("h100-sxm"), 4), limits)
            for limits in (EngineLimits(tensor=4), EngineLimits(tensor=1, stages=4))
        )
        assert (piped.replicas, piped.gpus) == (1, 4)
        # One key-value head is on each of four ranks, and on one stage only.
        assert piped.tokens == pytest.approx(4 * split.tokens, rel=0.05)

    def test_devices_that_do_not_divide_are_refused(self) -> None:
        with pytest.raises(UsageError, match="3 x NVIDIA H100 SXM5 80 GB do not divide into engines of 2 devices"):
            kv_pool(LLAMA, machine(load_hardware("h100-sxm"), 3), EngineLimits(tensor=2))


class TestWhatIsKeptFree:
    def test_more_rows_in_graphs_leave_a_smaller_pool(self) -> None:
        on = machine(load_hardware("h100-sxm"))
        none, few, many = (kv_pool(LLAMA, on, EngineLimits(graph_rows=rows)).bytes for rows in (0, 256, 1280))
        # 2 MiB a row, in thousandths of the memory.
        assert few - many == pytest.approx(1024 * 2 * 2**20, rel=0.05)
        assert none - few == pytest.approx(256 * 2 * 2**20, rel=0.15)

    def test_what_was_told_wins(self) -> None:
        on = machine(load_hardware("h100-sxm"))
        assert kv_pool(LLAMA, on, EngineLimits(pool_tokens=5000)).tokens == 5000
        assert kv_pool(LLAMA, on, EngineLimits(fraction=0.5)).fraction == 0.5
        assert kv_pool(LLAMA, on, EngineLimits(chunk=2048)).tokens > kv_pool(LLAMA, on).tokens

    def test_graphs_come_in_the_sizes_of_sglangs_list(self) -> None:
        sizes = [1, 2, 4, 8, 12, 16, 24, 256, 272, 512, 544]
        assert [graph_size(size) for size in sizes] == sizes
        assert [graph_size(size + 1) for size in sizes[4:]] == [16, 24, 32, 272, 288, 544, 576]

    @pytest.mark.parametrize(
        ("hardware", "chunk"), [("cpu", 4096), ("a100-40g", 4096), ("h200", 8192), ("b200", 16384)]
    )
    def test_the_chunk_follows_the_memory(self, hardware: str, chunk: int) -> None:
        assert engine_chunk(load_hardware(hardware)) == chunk


def test_key_value_heads_that_run_out_are_copied() -> None:
    # Two heads on eight devices: each of the heads is held four times, so the pool holds a quarter.
    split = load_card("qwen2.5-72b")
    copied = replace(split, kv_heads=2)
    once, fourfold = (kv_pool(model, machine(load_hardware("a100-80g"), gpus=8)) for model in (split, copied))
    assert fourfold.token_bytes * 4 == once.token_bytes
    assert fourfold.bytes == pytest.approx(once.bytes / 4, rel=0.05)


@pytest.mark.parametrize("fraction", [0.0, -1.0, 1.5])
def test_a_fraction_that_is_none_is_refused(fraction: float) -> None:
    with pytest.raises(UsageError, match="no share of the memory"):
        kv_pool(LLAMA, machine(load_hardware("h200")), EngineLimits(fraction=fraction))


@pytest.mark.parametrize("alias", list_aliases())
@pytest.mark.parametrize("hardware", list_hardware())
def test_every_pair_fits_or_is_refused_with_advice(alias: str, hardware: str) -> None:
    try:
        pool = kv_pool(load_card(alias), machine(load_hardware(hardware)))
    except UsageError as error:
        assert "GB are missing; use " in str(error)
    else:
        assert pool.tokens >= 2048
