"""What each node of a tree demands, and the ratios and bounds made of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blendrun.cost.balance import bound_seconds, density, path_sum
from blendrun.cost.base import Demand, Machine
from blendrun.cost.context import context_token_layers, decode_window_tokens, prefill_token_layers
from blendrun.cost.formulas import demand
from blendrun.cost.hardware import load_hardware, machine
from blendrun.models.cards import list_aliases, load_card
from tests.cost.toy_tree import make_lengths, make_prompts, make_tree
from tests.imports import loaded_by

LLAMA = load_card("llama-3-8b")
A100 = machine(load_hardware("a100-80g"))

prompt_lists = st.lists(st.lists(st.integers(0, 2), max_size=6), min_size=1, max_size=12)


def demand_of(prompts: list[list[int]], means: list[float], choices: list[int] | None = None) -> Demand:
    tree, columns = make_tree(prompts), make_prompts(prompts, choices)
    return demand(tree, columns, make_lengths(means), LLAMA, A100)


def test_one_request_costs_what_the_formulas_say() -> None:
    p, d = 100, 10.0
    one = demand_of([list(range(p))], [d])
    assert one.compute_tokens.tolist() == [0, p + d]
    matrices = 2 * LLAMA.layer_parameters_active * (p + d) + 2 * LLAMA.head_parameters * (d + 1)
    attention = 4 * 4096 * 32 * p * (p + 1) / 2
    assert one.flops[1] == pytest.approx(matrices + attention)
    assert one.kv_bytes[1] == pytest.approx((p * d + d * d / 2) * 131072)


def test_prefill_attention_is_half_of_the_papers_which_counts_both_triangles() -> None:
    p = 8000.0
    ours = LLAMA.attention_flops_per_pair * prefill_token_layers(LLAMA, np.zeros(1), np.array([p]))[0]
    assert ours / (4 * p * p * 4096 * 32) == pytest.approx(0.5, rel=1e-3)


def test_a_shared_prefix_is_computed_once_at_its_own_node() -> None:
    shared = demand_of([[1, 2, 3, 4], [1, 2, 3, 5]], [0, 0])
    assert shared.compute_tokens.tolist() == [0, 3, 1, 1]


def test_attention_of_a_segment_grows_with_its_depth() -> None:
    # The same ten tokens, at the start of a prompt and behind a hundred others.
    first, behind = prefill_token_layers(LLAMA, np.array([0.0, 100.0]), np.array([10.0, 110.0])) / 32
    assert (first, behind) == (55, 100 * 10 + 55)


def test_a_prompt_that_is_wholly_cached_still_computes_its_last_token() -> None:
    twins = demand_of([[1, 2, 3], [1, 2, 3]], [0, 0])
    assert twins.compute_tokens.tolist() == [0, 3, 0, 1]
    last = context_token_layers(LLAMA, np.array([3.0]))[0] * LLAMA.attention_flops_per_pair
    assert twins.flops[3] == pytest.approx(2 * (LLAMA.layer_parameters_active + LLAMA.head_parameters) + last)


def test_a_prompt_that_begins_another_computes_nothing_twice() -> None:
    assert demand_of([[1, 2, 3, 4], [1, 2, 3]], [0, 0]).compute_tokens.tolist() == [0, 3, 0, 1]


def test_each_further_choice_computes_the_last_prompt_token_again() -> None:
    assert demand_of([[1, 2, 3]], [5], choices=[4]).compute_tokens[1] == 3 + 3 + 4 * 5
    assert demand_of([[1, 2, 3]], [5], choices=[4]).kv_bytes[1] == 4 * demand_of([[1, 2, 3]], [5]).kv_bytes[1]


def test_an_empty_prompt_computes_nothing_but_its_answer() -> None:
    assert demand_of([[]], [5]).compute_tokens.tolist() == [0, 5]


def test_uncertain_lengths_read_more_than_their_mean() -> None:
    tree, prompts = make_tree([[1] * 10]), make_prompts([[1] * 10])
    certain = demand(tree, prompts, make_lengths([100]), LLAMA, A100).kv_bytes[1]
    spread = demand(tree, prompts, make_lengths([100], [20_000]), LLAMA, A100).kv_bytes[1]
    assert spread - certain == pytest.approx(10_000 / 2 * 131072)


def test_a_mixture_of_experts_multiplies_with_its_active_parameters() -> None:
    mixtral = load_card("mixtral-8x7b")
    tree, prompts = make_tree([[1]]), make_prompts([[1]])
    work = demand(tree, prompts, make_lengths([999]), mixtral, A100).flops[1]
    assert work == pytest.approx(2 * 1000 * mixtral.parameters_active, rel=0.02)


def test_latent_attention_reads_one_vector_a_layer() -> None:
    tree, prompts = make_tree([[1] * 100]), make_prompts([[1] * 100])
    reads = demand(tree, prompts, make_lengths([10]), load_card("deepseek-v3"), A100).kv_bytes[1]
    assert reads == pytest.approx((1000 + 50) * 70272)


def test_float32_values_cost_twice_the_reads() -> None:
    tree, prompts, lengths = make_tree([[1] * 100]), make_prompts([[1] * 100]), make_lengths([10])
    cpu = machine(load_hardware("cpu"))
    on_cpu, on_gpu = (demand(tree, prompts, lengths, LLAMA, on).kv_bytes[1] for on in (cpu, A100))
    assert on_cpu == 2 * on_gpu


@given(prompt=st.integers(0, 300), output=st.integers(0, 300), window=st.integers(1, 300))
def test_a_window_of_certain_lengths_is_read_exactly(prompt: int, output: int, window: int) -> None:
    mean = np.array([float(output)])
    ours = decode_window_tokens(np.array([float(prompt)]), mean, mean**2, window)[0]
    # p d + d^2/2 is the integral of p + i, so the window's sum is compared with the integral too, step by step.
    places = prompt + (np.arange(output * 100) + 0.5) / 100
    assert ours == pytest.approx(np.minimum(places, window).sum() / 100, rel=1e-4, abs=1e-6)


@given(prompt=st.floats(0, 1e5), mean=st.floats(1, 1e4), spread=st.floats(1, 50), window=st.integers(1, 10_000))
def test_a_window_is_never_read_more_than_the_whole_nor_beyond_itself(
    prompt: float, mean: float, spread: float, window: int
) -> None:
    means = np.array([mean])
    square = spread * means**2
    reads = decode_window_tokens(np.array([prompt]), means, square, window)[0]
    assert reads <= min(prompt * mean + square[0] / 2, window * mean) * (1 + 1e-9)


@given(start=st.integers(0, 300), length=st.integers(0, 300))
def test_prefill_within_windows_is_the_sum_over_tokens(start: int, length: int) -> None:
    card = load_card("gpt-oss-20b")  # 12 full layers, 12 with a window of 128
    tokens = np.arange(start + 1, start + length + 1)
    expected = 12 * tokens.sum() + 12 * np.minimum(tokens, 128).sum()
    ours = prefill_token_layers(card, np.array([float(start)]), np.array([float(start + length)]))[0]
    assert ours == expected


@pytest.mark.parametrize("alias", list_aliases())
def test_every_model_demands_something_finite_and_positive(alias: str) -> None:
    prompts = [[1, 2, 3, 4], [1, 2, 5], [1, 2]]
    tree, lengths = make_tree(prompts), make_lengths([10, 0, 3000])
    asked = demand(tree, make_prompts(prompts), lengths, load_card(alias), A100)
    assert all(np.all(np.isfinite(column)) for column in (asked.compute_tokens, asked.flops, asked.kv_bytes))
    assert np.all(asked.flops[1:] > 0) and asked.flops[0] == 0
    assert np.all(asked.kv_bytes[tree.leaf[tree.position[[0, 2]]]] > 0)
    assert asked.kv_bytes[tree.leaf[tree.position[1]]] == 0


@given(prompts=prompt_lists, data=st.data())
def test_the_root_sums_what_leaves_and_segments_ask_for(prompts: list[list[int]], data: st.DataObject) -> None:
    means = data.draw(st.lists(st.floats(0, 100), min_size=len(prompts), max_size=len(prompts)))
    tree, asked = make_tree(prompts), demand_of(prompts, means)
    copies = sum(
        prompts.count(prompt) - 1 for prompt in {tuple(prompt): prompt for prompt in prompts if prompt}.values()
    )
    distinct = tree.prompt_tokens - tree.shared_tokens
    assert tree.subtree_sum(asked.compute_tokens)[0] == pytest.approx(distinct + copies + sum(means))
    lengths = np.array([len(prompt) for prompt in prompts])
    reads = 131072 * (lengths * np.array(means) + np.array(means) ** 2 / 2).sum()
    assert tree.subtree_sum(asked.kv_bytes)[0] == pytest.approx(reads)


@given(prompts=prompt_lists, data=st.data())
def test_sharing_lowers_compute_and_nothing_else(prompts: list[list[int]], data: st.DataObject) -> None:
    means = data.draw(st.lists(st.floats(0, 100), min_size=len(prompts), max_size=len(prompts)))
    combine = demand_of(prompts, means)
    alone = [demand_of([prompt], [mean]) for prompt, mean in zip(prompts, means, strict=True)]
    assert combine.flops.sum() <= sum(one.flops.sum() for one in alone) * (1 + 1e-12)
    assert combine.kv_bytes.sum() == pytest.approx(sum(one.kv_bytes.sum() for one in alone))


@given(prompts=prompt_lists, flops=st.floats(1e12, 1e16), bandwidth=st.floats(1e11, 1e14))
def test_rates_scale_all_densities_alike(prompts: list[list[int]], flops: float, bandwidth: float) -> None:
    tree, asked = make_tree(prompts), demand_of(prompts, [5.0 + i for i in range(len(prompts))])
    other: Machine = replace(A100, flops=flops, bandwidth=bandwidth)
    ratio = (A100.flops / A100.bandwidth) / (flops / bandwidth)
    assert np.allclose(density(asked, tree, other), density(asked, tree, A100) * ratio)


@given(prompts=prompt_lists)
def test_a_path_is_the_sum_over_ancestors(prompts: list[list[int]]) -> None:
    tree = make_tree(prompts)
    own = np.arange(1.0, len(tree) + 1, dtype=np.float64)
    expected = np.zeros(len(tree))
    for node in range(1, len(tree)):
        expected[node] = expected[tree.parent[node]] + own[tree.parent[node]]
    assert np.allclose(path_sum(tree, own), expected)


def test_density_by_hand_with_and_without_the_path() -> None:
    tree = make_tree([[1, 2, 3, 4], [1, 2, 5]])
    asked = Demand(np.zeros(4), np.array([0.0, 20, 8, 4]), np.array([0.0, 0, 2, 1]))
    unit = replace(A100, flops=1.0, bandwidth=1.0)
    assert density(asked, tree, unit).tolist() == pytest.approx([32 / 3, 32 / 3, 4, 4])
    assert density(asked, tree, unit, charge_path=True).tolist() == pytest.approx([32 / 3, 32 / 3, 14, 24])


def test_density_is_infinite_where_nothing_is_decoded() -> None:
    prompts = [[1, 2], [3, 4]]
    tree = make_tree(prompts)
    ratio = density(demand_of(prompts, [0, 7]), tree, A100)
    assert np.isinf(ratio[tree.leaf]).tolist() == [True, False]
    assert np.isfinite(ratio[0])


def test_bounds_are_the_larger_and_the_sum() -> None:
    asked = Demand(np.zeros(2), np.array([0.0, 30]), np.array([0.0, 20]))
    bound = bound_seconds(asked, replace(A100, flops=10.0, bandwidth=5.0))
    assert (bound.compute, bound.memory, bound.overlapped, bound.serial) == (3, 4, 4, 7)


def test_shared_prefix_kernels_read_a_prefix_once_for_all_below() -> None:
    prompts = [[1] * 50 + [2], [1] * 50 + [3]]
    tree, columns, lengths = make_tree(prompts), make_prompts(prompts), make_lengths([10, 20])
    asked = demand(tree, columns, lengths, LLAMA, A100, shared_reads=1)
    assert asked.kv_bytes / 131072 == pytest.approx([0, 50 * 20, 1 * 10 + 50, 1 * 20 + 200])


def test_short_segments_are_read_by_each() -> None:
    prompts = [[1] * 50 + [2], [1] * 50 + [3]]
    tree, columns, lengths = make_tree(prompts), make_prompts(prompts), make_lengths([10, 20])
    kernels = [demand(tree, columns, lengths, LLAMA, A100, shared_reads=least).kv_bytes for least in (50, 51, None)]
    assert kernels[0] / 131072 == pytest.approx([0, 50 * 20, 1 * 10 + 50, 1 * 20 + 200])
    assert kernels[1] / 131072 == pytest.approx([0, 50 * 30, 1 * 10 + 50, 1 * 20 + 200])
    assert kernels[2].sum() == pytest.approx(kernels[1].sum())


@given(prompts=prompt_lists)
def test_shared_prefix_kernels_never_read_more(prompts: list[list[int]]) -> None:
    tree, columns = make_tree(prompts), make_prompts(prompts)
    lengths = make_lengths([3.0 * i for i in range(len(prompts))])
    each, shared = (
        demand(tree, columns, lengths, LLAMA, A100, shared_reads=least).kv_bytes.sum() for least in (None, 1)
    )
    assert shared <= each * (1 + 1e-12)


def test_importing_the_cost_model_is_light() -> None:
    assert loaded_by("blendrun.cost").isdisjoint({"torch", "sglang", "transformers", "numba"})
