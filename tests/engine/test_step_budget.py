"""How many prefill tokens a step is given, and that a policy reaches the scheduler as it is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from blendrun.blend.budget import AdaptiveBudget, ConstantBudget
from blendrun.engine.base import SchedulerSettings, budget_policy, step_budget
from blendrun.engine.scheduler.budget import StepBudget


@pytest.mark.parametrize("budget", [ConstantBudget(7), AdaptiveBudget(64, 512, 0.5, 100.0, 2.0, 0.25)])
def test_a_budget_survives_the_way_to_the_scheduler(budget: ConstantBudget | AdaptiveBudget) -> None:
    settings = SchedulerSettings(budget=step_budget(budget))
    arrived = msgspec.json.decode(msgspec.json.encode(settings), type=SchedulerSettings)
    assert arrived.budget is not None
    assert budget_policy(arrived.budget) == budget


def request(tokens: int, finished: bool = False) -> SimpleNamespace:
    reason = "length" if finished else None
    return SimpleNamespace(origin_input_ids=[0] * tokens, output_ids=[0], finished_reason=reason)


def tokens_of(policy: Any, rows: list[Any], *, mixed: bool, chunk: int = 4096, page: int = 1) -> int:
    """What a step's adder is left with."""
    budget = StepBudget(policy)
    scheduler = SimpleNamespace(page_size=page, is_mixed_chunk=mixed, enable_pdmux=False, chunked_prefill_size=chunk)
    return budget._tokens(scheduler, SimpleNamespace(reqs=rows))


class TestStepBudget:
    def test_decode_rows_of_a_mixed_step_are_counted(self) -> None:
        assert tokens_of(ConstantBudget(100), [request(9)] * 30, mixed=True) == 70

    def test_those_that_have_ended_are_not(self) -> None:
        assert tokens_of(ConstantBudget(100), [request(9)] * 30 + [request(9, True)], mixed=True) == 70

    def test_a_prefill_step_of_exclusive_mode_has_none_beside_it(self) -> None:
        assert tokens_of(ConstantBudget(100), [request(9)] * 300, mixed=False) == 100

    def test_a_mixed_step_full_of_rows_prefills_nothing(self) -> None:
        assert tokens_of(ConstantBudget(100), [request(9)] * 100, mixed=True) == 0
        assert tokens_of(ConstantBudget(1000), [request(9)] * 100, mixed=True, chunk=64) == 0

    def test_context_is_what_the_rows_have_in_the_cache(self) -> None:
        policy = AdaptiveBudget(1, 10_000, 1.0, 0.0, 0.0, 1.0)
        assert tokens_of(policy, [request(99), request(49)], mixed=True) == 152

    @pytest.mark.parametrize(("page", "tokens"), [(1, 100), (16, 96), (64, 64), (128, 128)])
    def test_whole_pages_and_at_least_one_when_nothing_runs(self, page: int, tokens: int) -> None:
        assert tokens_of(ConstantBudget(100), [], mixed=True, page=page) == tokens

    def test_beside_rows_less_than_a_page_is_nothing(self) -> None:
        assert tokens_of(ConstantBudget(100), [request(9)] * 90, mixed=True, page=16) == 0
