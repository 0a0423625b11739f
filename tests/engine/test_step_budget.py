"""How many prefill tokens a step is given, and that a policy reaches the scheduler as it is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from blendrun.blend.budget import AdaptiveBudget, Budget, ConstantBudget, CrossoverBudget, TurnsBudget
from blendrun.engine.base import SchedulerSettings, budget_policy, step_budget
from blendrun.engine.scheduler.budget import StepBudget


@pytest.mark.parametrize(
    "budget",
    [
        ConstantBudget(7),
        AdaptiveBudget(64, 512, 0.5, 100.0, 2.0, 0.25),
        TurnsBudget(4096, 0.9),
        CrossoverBudget(512, 4096, 0.3, 100.0, 2.0, 0.25),
    ],
)
def test_a_budget_survives_the_way_to_the_scheduler(budget: Budget) -> None:
    settings = SchedulerSettings(budget=step_budget(budget))
    arrived = msgspec.json.decode(msgspec.json.encode(settings), type=SchedulerSettings)
    assert arrived.budget is not None
    assert budget_policy(arrived.budget) == budget


def request(tokens: int, finished: bool = False) -> SimpleNamespace:
    reason = "length" if finished else None
    return SimpleNamespace(origin_input_ids=[0] * tokens, output_ids=[0], finished_reason=reason)


def tokens_of(policy: Any, rows: list[Any], *, mixed: bool, chunk: int = 4096, page: int = 1) -> int:
    """What a step's adder is left with."""
    return StepBudget(policy).look(scheduler_of(mixed=mixed, chunk=chunk, page=page), SimpleNamespace(reqs=rows))[0]


def scheduler_of(*, mixed: bool, chunk: int = 4096, page: int = 1) -> SimpleNamespace:
    return SimpleNamespace(
        page_size=page, is_mixed_chunk=mixed, enable_pdmux=False, chunked_prefill_size=chunk, chunked_req=None,
        result_queue=[],
    )  # fmt: skip


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


class TestCrossover:
    """Reading a cached token is worth 0.01 prefill tokens, and half as much again where a step mixes."""

    POLICY = CrossoverBudget(256, 512, mixed=0.5, weight_tokens=150.0, row_tokens=1.0, cached_tokens=0.01)

    def test_mixes_where_that_saves_more_weights_than_it_costs_attention(self) -> None:
        # 100 rows leave room for 50 tokens under the reading of the weights.
        few = SimpleNamespace(reqs=[request(90)] * 100)
        assert StepBudget(self.POLICY).look(scheduler_of(mixed=True), few) == (156, True)

    def test_prefills_alone_where_it_does_not(self) -> None:
        many = SimpleNamespace(reqs=[request(110)] * 100)
        assert StepBudget(self.POLICY).look(scheduler_of(mixed=True), many) == (512, False)

    def test_exclusive_mode_cannot_mix(self) -> None:
        few = SimpleNamespace(reqs=[request(9)] * 100)
        assert StepBudget(self.POLICY).look(scheduler_of(mixed=False), few) == (256, False)


class TestTurns:
    POLICY = TurnsBudget(512, drained=0.75)

    def look(self, budget: StepBudget, rows: int, scheduler: Any) -> int:
        return budget.look(scheduler, SimpleNamespace(reqs=[request(9)] * rows))[0]

    def test_prefill_waits_until_rows_have_ended(self) -> None:
        budget, scheduler = StepBudget(self.POLICY), scheduler_of(mixed=False)
        assert self.look(budget, 30, scheduler) == 512
        assert budget._turns is not None
        budget._turns.nothing_came(scheduler, 40)
        assert [self.look(budget, rows, scheduler) for rows in (40, 31, 30)] == [0, 0, 512]
        # Once begun, it goes on whatever runs.
        assert self.look(budget, 90, scheduler) == 512

    def test_a_turn_goes_on_while_others_may_be_let_in_by_what_is_computed(self) -> None:
        budget, scheduler = StepBudget(self.POLICY), scheduler_of(mixed=False)
        in_flight = SimpleNamespace(forward_mode=SimpleNamespace(is_extend=lambda: True))
        scheduler.result_queue.append((in_flight, None))
        assert budget._turns is not None
        budget._turns.nothing_came(scheduler, 40)
        assert self.look(budget, 40, scheduler) == 512

    def test_a_prompt_that_is_half_in_goes_on(self) -> None:
        budget, scheduler = StepBudget(self.POLICY), scheduler_of(mixed=False)
        assert budget._turns is not None
        budget._turns.nothing_came(scheduler, 40)
        scheduler.chunked_req = object()
        assert self.look(budget, 40, scheduler) == 512
