"""What an engine has and what waits, in tokens and seconds: from a feeder, what is in flight and the step log."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from blendrun.blend.orders import simple_order
from blendrun.learned import ahead
from blendrun.names import OrderName
from blendrun.planner.feeder import PlanFeeder, RowFeeder
from blendrun.planner.run_plan import RunPlan
from blendrun.runner.flight import Asked, Flight
from blendrun.runner.remaining import work_of
from blendrun.store.steps import StepTail
from tests.blend.jobs_of_lengths import small_job

LENGTHS = [50, 20, 40, 30]
STEP_S = 0.1


def plan_of(lengths: list[int]) -> RunPlan:
    """Prompts of ten tokens that share nothing, with answers of known lengths, in the order given."""
    job = small_job([[1000 + place] * 10 for place in range(len(lengths))], lengths)
    order = simple_order(OrderName.GIVEN, job.prompts, job.tree, job.lengths)
    wanted = np.ones(len(lengths), dtype=np.bool_)
    return RunPlan(
        PlanFeeder(job.prompts, job.tree, job.lengths, order, wanted=wanted, pool_tokens=10_000), OrderName.GIVEN
    )


def fed(plan: RunPlan, count: int) -> list[Flight]:
    found = (plan.feeder.take() for _ in range(count))
    return [Flight(queued, plan, Asked("id"), 0.0, 0) for queued in found if queued is not None]


def steps_of(path: Path, flights: list[Flight], decoded: int) -> StepTail:
    """A log in which all of `flights` were admitted and have decoded so many tokens."""
    tail = StepTail(path)
    admitted = [each.queued.index for each in flights]
    known = {"kv_used": 1, "waiting": 0, "prefill_square": 0, "begun": 0, "seconds": STEP_S}
    lines = [{"admitted": admitted, "decode_rows": 0, "prefill_tokens": 10 * len(flights), "context_tokens": 0}]
    lines += [{"admitted": [], "decode_rows": len(flights), "prefill_tokens": 0, "context_tokens": 10}] * decoded
    whole = [known | {"step": place, "time": place * STEP_S} | line for place, line in enumerate(lines)]
    path.write_bytes(b"".join(json.dumps(line).encode() + b"\n" for line in whole))
    tail.finish()
    return tail


def test_the_longest_of_what_runs_decides_where_nothing_waits(tmp_path: Path) -> None:
    plan = plan_of(LENGTHS)
    flights = fed(plan, 4)
    work = work_of(plan, flights, steps_of(tmp_path / "steps", flights, 10), [7, 3])
    assert work is not None and work.ahead is not None
    assert (work.done_prompt, work.done_output) == (7 + 40, 3 + 40)
    assert (work.left_prompt, work.left_output) == (0, sum(LENGTHS) - 40)
    low, high = work.ahead
    # 40 steps are left, of four rows at first and of one at last.
    assert low < 40 * STEP_S * 0.8 < 40 * STEP_S < high < 80 * STEP_S
    assert work.in_flight == work.ahead


def test_what_waits_comes_on_top(tmp_path: Path) -> None:
    plan = plan_of(LENGTHS)
    flights = fed(plan, 2)
    work = work_of(plan, flights, steps_of(tmp_path / "steps", flights, 10), [0, 0])
    assert work is not None and work.ahead is not None and work.in_flight is not None
    assert work.left_prompt == 20
    assert work.in_flight[1] < work.ahead[1]
    assert work.in_flight[0] < work.ahead[0]


def test_before_a_step_and_without_a_plan_nobody_knows(tmp_path: Path) -> None:
    plan = plan_of(LENGTHS)
    work = work_of(plan, fed(plan, 2), StepTail(tmp_path / "none"), [0, 0])
    assert work is not None
    assert work.ahead is None and work.in_flight is None
    assert work_of(RunPlan(RowFeeder(np.arange(3)), OrderName.GIVEN), [], None, [0, 0]) is None


def test_what_are_too_many_to_be_drawn_is_left_to_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ahead.MOST_WAITING >= 3
    plan = plan_of([20] * (ahead.MOST_WAITING + 3))
    flights = fed(plan, 2)
    work = work_of(plan, flights, steps_of(tmp_path / "steps", flights, 10), [0, 0])
    assert work is not None
    assert work.ahead is None
    assert work.in_flight is not None, "a drain is told of all the same"
