"""Step budgets: pure numbers that a scheduler asks for at every step."""

from __future__ import annotations

import subprocess
import sys

import pytest

from blendrun.blend.budget import AdaptiveBudget, ConstantBudget, CrossoverBudget, TurnsBudget


def test_a_constant_budget_counts_decode_rows() -> None:
    budget = ConstantBudget(512)
    assert [budget.prefill_tokens(rows, 10_000) for rows in (0, 12, 512, 900)] == [512, 500, 0, 0]


def test_an_adaptive_budget_follows_the_memory_time() -> None:
    budget = AdaptiveBudget(floor=128, most=4096, ratio=2.0, weight_tokens=130.0, row_tokens=1.1, cached_tokens=0.002)
    assert budget.prefill_tokens(0, 0) == 260  # Reading the weights, twice.
    assert budget.prefill_tokens(10, 99_990) == (2 * (130 + 200))
    assert budget.prefill_tokens(1000, 0) == (2 * (1100 + 2))
    assert budget.prefill_tokens(10, 10_000_000) == 4096


def test_an_adaptive_budget_has_a_floor() -> None:
    budget = AdaptiveBudget(floor=128, most=4096, ratio=0.1, weight_tokens=130.0, row_tokens=1.1, cached_tokens=0.002)
    assert budget.prefill_tokens(20, 0) == 108
    assert budget.prefill_tokens(500, 0) == int(0.1 * (550 + 1))


def test_a_crossover_that_costs_nothing_is_a_constant_budget() -> None:
    crossing, constant = CrossoverBudget(512, 4096, 0.0, 150.0, 1.1, 0.01), ConstantBudget(512)
    for rows, context in ((0, 0), (10, 100), (500, 10_000_000), (900, 10)):
        assert crossing.mixes(rows, context)
        assert crossing.prefill_tokens(rows, context) == constant.prefill_tokens(rows, context)


def test_a_crossover_mixes_up_to_the_context_at_which_both_ways_take_as_long() -> None:
    # 100 rows leave room for 50 tokens under the reading of the weights; 0.5 * 0.01 a cached token is lost.
    budget = CrossoverBudget(256, 512, 0.5, 150.0, 1.0, 0.01)
    assert [budget.mixes(100, context) for context in (9_900, 9_901)] == [True, False]
    assert [budget.prefill_tokens(100, context) for context in (9_900, 9_901)] == [156, 512]


def test_turns_never_mix() -> None:
    budget = TurnsBudget(512, 0.75)
    assert not budget.mixes(1, 1)
    assert budget.prefill_tokens(900, 10**6) == 512
    assert [budget.is_due(rows, 40) for rows in (31, 30, 0)] == [False, True, True]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: ConstantBudget(0),
        lambda: AdaptiveBudget(0, 1, 1, 1, 1, 1),
        lambda: AdaptiveBudget(1, 0, 1, 1, 1, 1),
        lambda: TurnsBudget(0, 0.5),
        lambda: TurnsBudget(1, 1.5),
        lambda: CrossoverBudget(0, 1, 1, 1, 1, 1),
        lambda: CrossoverBudget(1, 0, 1, 1, 1, 1),
        lambda: CrossoverBudget(1, 1, -1, 1, 1, 1),
    ],
)
def test_budgets_that_stop_the_engine_are_refused(wrong: object) -> None:
    assert callable(wrong)
    with pytest.raises(ValueError, match="step"):
        wrong()


def test_the_least_budgets_that_do_not_stop_it_are_taken() -> None:
    assert ConstantBudget(1).prefill_tokens(0, 0) == 1
    assert AdaptiveBudget(1, 1, 0, 1, 1, 1).prefill_tokens(0, 0) == 1


def test_budgets_need_neither_numpy_nor_numba_to_answer() -> None:
    code = "import sys; from blendrun.blend.budget import ConstantBudget; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
