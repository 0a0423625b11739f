"""What a step is, by the budget, on SGLang's own scheduler: prefill, decoding or both."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from blendrun.engine.base import (
    ConstantStep,
    CrossoverStep,
    Planned,
    SchedulerSettings,
    StepBudget,
    TurnsStep,
    budget_policy,
)
from blendrun.engine.scheduler import plugin
from blendrun.names import OrderName, Overlap
from blendrun.simulate.base import SimulatedEngine
from blendrun.simulate.simulator import simulate
from tests.engine.scheduler_loop import Loop, engine_settings, hooked
from tests.simulate.small_jobs import STEP, job_of

pytestmark = pytest.mark.runtime

COUNT, POOL, ROWS = 40, 900, 16
PROMPTS = [[number * 1000 + place for place in range(30 + number % 30)] for number in range(COUNT)]
ANSWERS = [5 + 7 * number % 40 for number in range(COUNT)]
CONSTANTS = {"weight_tokens": 20.0, "row_tokens": 1.0, "cached_tokens": 0.1}


@pytest.fixture(scope="module", autouse=True)
def settings(tiny_model: Path) -> Iterator[None]:
    with engine_settings(str(tiny_model)):
        yield


def steps_of(budget: StepBudget, *, mixed: bool) -> tuple[list[str], Loop]:
    """What each step was ("extend", "decode", "mixed"), until 40 requests of 30 to 60 tokens have ended."""
    loop = Loop(POOL, ROWS, chunk=128, mixed=mixed)
    for number, (prompt, answer) in enumerate(zip(PROMPTS, ANSWERS, strict=True)):
        loop.submit(f"{number}", prompt, answer, Planned(number, answer, 0), most=100)
    modes: list[str] = []
    scheduler = loop.scheduler
    with hooked(plugin.hooks(SchedulerSettings(gate=True, reserve=True, plan_order=True, budget=budget))):
        while scheduler.waiting_queue or scheduler.last_batch or not modes:
            batch: Any = loop.run()
            if batch:
                modes.append(batch.forward_mode.name.lower())
    return modes, loop


def came_in_order(loop: Loop) -> bool:
    """A prompt that is cut comes in several times."""
    places = [place for _, place in loop.admitted]
    return places == sorted(places) and set(places) == set(range(COUNT))


@pytest.mark.parametrize("mixed", [False, True])
def test_turns_prefill_less_often_and_never_mix(mixed: bool) -> None:
    usual, _ = steps_of(ConstantStep(128), mixed=False)
    modes, loop = steps_of(TurnsStep(128, 0.5), mixed=mixed)
    assert set(modes) == {"extend", "decode"}
    assert came_in_order(loop)
    changes = [sum(one != other for one, other in pairwise(each)) for each in (modes, usual)]
    assert changes[0] < changes[1] / 2
    assert loop.scheduler.is_mixed_chunk is mixed


def test_a_crossover_mixes_or_does_not_step_by_step() -> None:
    always, _ = steps_of(CrossoverStep(128, 128, mixed=0.0, **CONSTANTS), mixed=True)
    usual, _ = steps_of(ConstantStep(128), mixed=True)
    assert always == usual
    assert "mixed" in usual
    never, _ = steps_of(CrossoverStep(128, 128, mixed=1e9, **CONSTANTS), mixed=True)
    assert set(never) == {"extend", "decode"}
    # Few rows mix, many do not.
    some, loop = steps_of(CrossoverStep(128, 128, mixed=0.5, **CONSTANTS), mixed=True)
    assert {"extend", "mixed"} <= set(some)
    assert came_in_order(loop)
    assert loop.scheduler.is_mixed_chunk is True


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize(
    "budget",
    [
        ConstantStep(128),
        TurnsStep(128, 0.5),
        TurnsStep(128, 0.9),
        CrossoverStep(128, 128, mixed=0.1, **CONSTANTS),
        CrossoverStep(128, 128, mixed=0.5, **CONSTANTS),
    ],
)
def test_it_takes_as_many_steps_as_simulated(budget: StepBudget, mixed: bool) -> None:
    job, overlap = job_of(PROMPTS, ANSWERS), Overlap.MIXED if mixed else Overlap.EXCLUSIVE
    engine = SimulatedEngine(POOL, overlap, budget_policy(budget), max_running=ROWS, gate=False)
    promised = simulate(job.tree, job.prompts, job.order(OrderName.GIVEN), job.outputs, STEP, engine).steps
    modes, _ = steps_of(budget, mixed=mixed)
    # In a pool this small SGLang sends a few requests back where the simulator just fits them in.
    assert promised <= len(modes) <= 1.08 * promised
