"""The portfolio: every order on every mode with its best budget, and none better than what is chosen."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from blendrun.blend.base import Blend
from blendrun.blend.budget import AdaptiveBudget, ConstantBudget, CrossoverBudget, TurnsBudget
from blendrun.cost.balance import bound_seconds
from blendrun.cost.base import Figure
from blendrun.cost.capacity import KvPool, kv_pool
from blendrun.cost.formulas import demand
from blendrun.errors import UsageError
from blendrun.models.cards import load_card
from blendrun.names import OrderName, Overlap
from blendrun.simulate import portfolio as portfolio_module
from blendrun.simulate.base import StepTime
from blendrun.simulate.budgets import adaptive_budget, budgets_to_try
from blendrun.simulate.portfolio import BLENDRUN, EAGER, Portfolio, simulate_portfolio
from blendrun.simulate.steptime import step_time
from tests.simulate.small_jobs import MACHINE, MODEL, Job, job_of

SIMPLE = (OrderName.GIVEN, OrderName.SHUFFLED, OrderName.SORTED, OrderName.LOF)
POOL = KvPool(1, 1, 4_000, MODEL.kv_bytes_per_token(2), 0.9)


def job() -> Job:
    """Documents with short answers, then stories that are long ones: as far from a mix as can be."""
    units = [[document] * 80 + [question] for document in range(30) for question in range(10)]
    units += [[100 + story] * 5 for story in range(60)]
    return job_of(units, [4] * 300 + [400] * 60)


def portfolio(made: Job, pool: KvPool = POOL, **options: Any) -> Portfolio:
    simulated = partial(simulate_portfolio, made.tree, made.prompts, made.lengths)
    blends = [made.blend(pool.tokens, scattered=scattered) for scattered in (False, True)]
    return simulated([made.order(name) for name in SIMPLE], blends, MODEL, MACHINE, pool=pool, **options)


def test_the_chosen_one_is_no_slower_than_any_other() -> None:
    found = portfolio(job(), replace(POOL, tokens=30_000), overlaps=tuple(Overlap))
    assert [(each.overlap, each.order) for each in found.candidates] == [
        (overlap, order)
        for overlap in Overlap
        for order in (OrderName.GIVEN, OrderName.SORTED, OrderName.SHUFFLED, OrderName.LOF, OrderName.BLENDED)
    ]
    soonest = min(each.seconds for each in found.candidates)
    # Times within half a per cent are equal, and the simpler one of them is taken.
    assert found.chosen.seconds <= 1.005 * soonest
    assert all(isinstance(each.fed, Blend) == (each.order is OrderName.BLENDED) for each in found.candidates)
    assert found.chosen.seconds < found.plain.seconds
    assert (found.plain.order, found.plain.overlap) == (OrderName.GIVEN, Overlap.EXCLUSIVE)
    assert all(each.seconds >= found.bound.overlapped for each in found.candidates)


def test_sglang_reserves_all_of_an_answer_of_fixed_length_and_less_of_others() -> None:
    # Whose answers nothing but their bound can end come in later: what is to come of them is kept free.
    made = job_of([[place] * 20 for place in range(60)], [100] * 60)
    free = replace(made.prompts, known=np.zeros(60, dtype=np.bool_))
    pool = replace(POOL, tokens=1_000)
    kept, less = (portfolio(replace(made, prompts=prompts), pool).plain.outcome for prompts in (made.prompts, free))
    assert kept.retractions == 0 < less.retractions
    assert max(kept.timeline.rows) < max(less.timeline.rows)


def test_groups_that_share_far_apart_in_a_pool_too_small() -> None:
    # 300 requests behind 30 prefixes, in random order, with the step times of a small model on a CPU. There depth first
    # took 41.9 s with SGLang's own reserve and 44.8 s with look-ahead, the given order 105.2 s; 77.1 % were cached. By
    # the steps that SGLang's scheduler takes, so priced (`bench tunnel`), it is 41.4, 39.9 and 92.8 s.
    places = np.random.default_rng(0).permutation(300)
    units = [[place // 10] * 96 + [100 + place] * 16 for place in places]
    step = StepTime(1.9e-3, 1.9e-3, 3.5e-7, 1.3e-5, weights=0.134, row=4.4e-3, request=4.4e-2)
    made, pool = job_of(units, [4] * 300), replace(POOL, tokens=800)
    options = {"overlaps": [Overlap.EXCLUSIVE], "step": step, "chunk": 4096, "max_running": 32}
    found = portfolio(made, pool, **options)
    assert found.chosen.admission == BLENDRUN
    assert found.chosen.outcome.hit_tokens == made.tree.shared_tokens == 270 * 96
    assert found.plain.seconds / found.chosen.seconds > 2.3
    eager = portfolio(made, pool, admissions=[EAGER], **options)
    assert found.chosen.seconds <= eager.chosen.seconds < 1.1 * found.chosen.seconds


def test_of_equal_times_the_simplest_is_chosen() -> None:
    alike = job_of([[place] * 20 for place in range(30)], [10] * 30)
    assert portfolio(alike, overlaps=[Overlap.MIXED]).chosen.order is OrderName.GIVEN


def test_answers_end_where_the_pool_does_and_a_longer_prompt_is_refused() -> None:
    long = job_of([[1] * 100, [2] * 50], [10_000, 5])
    assert portfolio(long, overlaps=[Overlap.MIXED]).outputs.tolist() == [3_900, 5]
    with pytest.raises(UsageError, match=r"request 1 has 5,000 tokens, and the KV cache holds 4,000: it cannot run"):
        portfolio(job_of([[1] * 5_000], [5]))


def test_the_adaptive_budget_divides_a_step_as_the_job_divides_its_time() -> None:
    made, step, pool = job(), step_time(MODEL, MACHINE), kv_pool(MODEL, MACHINE)
    bound = bound_seconds(demand(made.tree, made.prompts, made.lengths, MODEL, MACHINE), MACHINE)
    decoded = float(made.outputs.sum())
    budget = adaptive_budget(pool, step, bound, decoded, most=100_000)
    steps = bound.memory / (step.kv_token * pool.tokens * 2 / 3)
    # So few steps that they count as none would be a job without decoding.
    assert budget.ratio == 1.0 if steps < 1 else budget.ratio > 0
    long = replace(bound, memory=100.0, compute=150.0)
    ratio = adaptive_budget(pool, step, long, 1e6, most=100_000).ratio
    steps = long.memory / (step.kv_token * pool.tokens * 2 / 3)
    decoding = long.memory + max(steps * step.weights, 1e6 * step.decode_token)
    assert ratio == pytest.approx((long.compute - 1e6 * step.decode_token) / decoding)
    # Prefill of a step, in seconds, over the rest of it.
    rows, context = 60, 300_000
    prefill = replace(budget, ratio=ratio).prefill_tokens(rows, context) * step.prefill_token
    rest = max(step.weights, rows * step.decode_token) + step.kv_token * (context + rows)
    assert prefill / rest == pytest.approx(ratio, rel=0.01)


def test_budgets_of_each_mode() -> None:
    made, step = job(), step_time(MODEL, MACHINE)
    asked = demand(made.tree, made.prompts, made.lengths, MODEL, MACHINE)
    find = partial(budgets_to_try, asked, POOL, step, bound_seconds(asked, MACHINE), 25e3, 8192)
    few, many = find(thorough=False), find(thorough=True)
    assert few[Overlap.EXCLUSIVE] == many[Overlap.EXCLUSIVE] == [ConstantBudget(8192)]
    assert [type(budget) for budget in few[Overlap.MIXED]] == [ConstantBudget]
    assert [type(budget) for budget in few[Overlap.PDMUX]] == [ConstantBudget, AdaptiveBudget, AdaptiveBudget]
    assert many[Overlap.MIXED] == many[Overlap.PDMUX]
    *fixed, adaptive, hasty = many[Overlap.PDMUX]
    assert ConstantBudget(8192) in fixed
    assert set(few[Overlap.MIXED]) < set(fixed)
    assert isinstance(adaptive, AdaptiveBudget)
    assert isinstance(hasty, AdaptiveBudget)
    assert hasty.ratio > adaptive.ratio > 0
    assert few[Overlap.PDMUX][-1] == hasty


def test_turns_are_tried_where_a_step_costs_something_by_itself() -> None:
    made, step = job(), replace(step_time(MODEL, MACHINE), step=1e-3)
    asked = demand(made.tree, made.prompts, made.lengths, MODEL, MACHINE)
    find = partial(budgets_to_try, asked, POOL, step, bound_seconds(asked, MACHINE), 25e3, 8192)
    assert find(thorough=False)[Overlap.EXCLUSIVE] == [ConstantBudget(8192)]
    constant, turns = find(thorough=True)[Overlap.EXCLUSIVE]
    assert constant == ConstantBudget(8192)
    assert isinstance(turns, TurnsBudget)
    assert turns.tokens == 8192


def test_mixed_steps_are_tried_with_a_crossover_where_mixing_costs_something() -> None:
    made = job()
    asked = demand(made.tree, made.prompts, made.lengths, MODEL, MACHINE)
    step = step_time(
        MODEL, replace(MACHINE, card=replace(MACHINE.card, mixed_attention=Figure(0.4, "a test", "prior")))
    )
    assert (step.mixed, step.origin["mixed"]) == (0.4, "prior")
    for thorough in (False, True):
        tried = budgets_to_try(asked, POOL, step, bound_seconds(asked, MACHINE), 25e3, 8192, thorough=thorough)
        constant = {each.tokens for each in tried[Overlap.MIXED] if isinstance(each, ConstantBudget)}
        assert {each.tokens for each in tried[Overlap.MIXED] if isinstance(each, CrossoverBudget)} == constant
        assert not any(isinstance(each, CrossoverBudget) for each in tried[Overlap.PDMUX])


def test_a_model_of_sliding_windows_alone_has_a_budget() -> None:
    model = load_card("llama-3-8b")
    step = replace(step_time(model, MACHINE), kv_token=0.0)
    made = job()
    bound = bound_seconds(demand(made.tree, made.prompts, made.lengths, model, MACHINE), MACHINE)
    assert adaptive_budget(POOL, step, bound, 25e3, most=8192).ratio == 1.0


@pytest.mark.parametrize("rate", ["flops", "bandwidth"])
@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_rates_that_give_no_time_are_refused_by_name(rate: str, value: float) -> None:
    change: dict[str, Any] = {rate: value}
    with pytest.raises(UsageError, match=f"a100-80g: a {rate} of .* gives no time; fix the hardware card"):
        step_time(MODEL, replace(MACHINE, **change))


def test_large_jobs_compare_budgets_and_admission_on_a_part_and_show_whole_runs_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(1)
    units = [[document] * 30 + [question] for document in range(200) for question in range(3)]
    made = job_of(units, rng.integers(1, 60, len(units)).tolist())
    whole, few = portfolio(made, thorough=True), portfolio(made, thorough=False)
    assert (whole.part, few.part) == (0, 0)
    monkeypatch.setattr(portfolio_module, "_LARGE", 300)
    monkeypatch.setattr(portfolio_module, "_PART", 200)
    found = portfolio(made)
    assert 150 < found.part < 250
    assert f"compared on {found.part} of its requests" in found.why
    for mine, least, most in zip(found.candidates, whole.candidates, few.candidates, strict=True):
        assert (mine.order, mine.overlap) == (least.order, least.overlap)
        # Never worse than the few alone, and a run of the whole job.
        assert least.seconds <= mine.seconds <= most.seconds
        assert mine.outcome.decode_tokens == least.outcome.decode_tokens
