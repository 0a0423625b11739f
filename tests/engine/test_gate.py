"""Lines of several requests on SGLang's own scheduler: who waits for whom, in as many steps as are planned."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from blendrun.engine.base import ConstantStep, Planned, SchedulerSettings, budget_policy
from blendrun.engine.scheduler import plugin
from blendrun.names import OrderName, Overlap
from blendrun.simulate.base import SimulatedEngine
from blendrun.simulate.simulator import simulate
from tests.engine.scheduler_loop import Loop, engine_settings, hooked
from tests.simulate.small_jobs import STEP, job_of

pytestmark = pytest.mark.runtime

LINES, ITEMS, QUERY, ITEM = 24, 4, 60, 6
POOL, ROWS = 20_000, 64


@pytest.fixture(scope="module", autouse=True)
def settings(tiny_model: Path) -> Iterator[None]:
    with engine_settings(str(tiny_model)):
        yield


def prompts(line: int, shared: int) -> list[list[int]]:
    """A line's: a query, of which the first `shared` tokens are those of all lines, and an item behind it."""
    query = [*range(shared), *(1000 * (line + 1) + place for place in range(QUERY - shared))]
    return [
        [*query, *(500_000 + 100 * (ITEMS * line + item) + place for place in range(ITEM))] for item in range(ITEMS)
    ]


def admitted(budget: int, shared: int = 0) -> list[list[int]]:
    """Lines whose requests came in, step by step."""
    loop = Loop(POOL, ROWS)
    for line in range(LINES):
        for item, prompt in enumerate(prompts(line, shared)):
            loop.submit(f"{line}.{item}", prompt, 1, Planned(line, 1, 0), most=1)
    asked = SchedulerSettings(gate=True, reserve=True, plan_order=True, budget=ConstantStep(budget))
    scheduler, begun = loop.scheduler, False
    with hooked(plugin.hooks(asked)):
        while scheduler.waiting_queue or scheduler.last_batch or not begun:
            begun = bool(loop.run()) or begun
    assert len({place for _, place in loop.admitted}) == LINES
    found: list[Any] = [list(each) for _, each in groupby(loop.admitted, key=lambda each: each[0])]
    return [[place for _, place in each] for each in found]


def planned_steps(budget: int) -> int:
    lines = [prompts(line, 0) for line in range(LINES)]
    units = [[*line[0], *(token for each in line[1:] for token in each[QUERY:])] for line in lines]
    job = job_of(units, [1] * LINES, parts=[(ITEMS, QUERY + ITEM, QUERY)] * LINES)
    policy = budget_policy(ConstantStep(budget))
    engine = SimulatedEngine(POOL, Overlap.EXCLUSIVE, policy, max_running=ROWS)
    return simulate(job.tree, job.prompts, job.order(OrderName.GIVEN), job.outputs, STEP, engine).steps


def test_other_lines_come_in_while_a_lines_items_wait_for_its_query() -> None:
    first, *others = admitted(8192)
    # All that a budget, or the rows of the engine, have room for; not a line a step.
    assert first == list(range(LINES))
    assert [place for each in others for place in each] == [line for line in range(LINES) for _ in range(ITEMS - 1)]


@pytest.mark.parametrize("budget", [128, 512, 2048])
def test_it_takes_as_many_steps_as_simulated(budget: int) -> None:
    # Where prompts are cut, SGLang goes on with the one that was cut, and leaves the rest of that step to fewer.
    assert len(admitted(budget)) == pytest.approx(
        planned_steps(budget), rel=0.2 if budget < QUERY * ITEMS else 0, abs=1
    )


def test_lines_that_share_a_prefix_wait_for_the_line_that_computes_it() -> None:
    steps = admitted(8192, shared=40)
    assert steps[0] == [0]
    assert all(len(each) > 1 for each in steps[1:])
