"""The tokens of a step, and the room for cache beside the weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blendrun.cost.capacity import kv_pool
from blendrun.cost.hardware import list_hardware, load_hardware, machine
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
    # 0.9 * 85.9 GB less 16.1 GB of weights and 1 GB of activations. The paper leaves 60 of 80 GB.
    assert pool.bytes == pytest.approx(60e9, rel=0.01)
    assert pool.tokens == kv_pool(LLAMA, machine(load_hardware("a100-80g"))).tokens


def test_a_model_that_does_not_fit_one_device_takes_all_together() -> None:
    pool = kv_pool(load_card("llama-3.3-70b"), machine(load_hardware("a100-80g"), gpus=8))
    assert (pool.replicas, pool.gpus) == (1, 8)
    assert pool.bytes == pytest.approx(0.9 * 8 * 85.9e9 - 141e9, rel=0.03)


def test_a_model_that_does_not_fit_at_all_says_what_is_missing_and_what_helps() -> None:
    with pytest.raises(UsageError, match=r"Llama 3\.3 70B.* GB are missing; use 4 of them, or a smaller model"):
        kv_pool(load_card("llama-3.3-70b"), machine(load_hardware("a100-40g")))
    with pytest.raises(UsageError, match=r"missing; use a smaller model$"):
        kv_pool(load_card("llama-3.3-70b"), machine(load_hardware("cpu")))


def test_what_is_advised_fits() -> None:
    needed = machine(load_hardware("a100-40g"), gpus=4)
    assert kv_pool(load_card("llama-3.3-70b"), needed).gpus == 4


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
        kv_pool(LLAMA, machine(load_hardware("h200")), fraction)


@pytest.mark.parametrize("alias", list_aliases())
@pytest.mark.parametrize("hardware", list_hardware())
def test_every_pair_fits_or_is_refused_with_advice(alias: str, hardware: str) -> None:
    try:
        pool = kv_pool(load_card(alias), machine(load_hardware(hardware)))
    except UsageError as error:
        assert "GB are missing; use " in str(error)
    else:
        assert pool.tokens >= 2048
