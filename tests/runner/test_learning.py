"""Answers are far shorter than expected: the run learns it on the way, and hands over the rest by what it knows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import msgspec
import pytest

from blendrun.cost.capacity import EngineLimits
from blendrun.engine.base import Result, WorkItem
from blendrun.engine.replay import ReplayEngine, ReplaySettings
from blendrun.models.resolve import resolve_model
from blendrun.names import OrderName
from blendrun.planner.run_plan import RunPlan
from blendrun.planner.run_planner import RunPlanner
from tests.runner.runner_job import line, lines_of, run, write

COUNT, BOUND, REAL = 240, 256, 5
QUARTER = COUNT // 4


class Short(ReplayEngine):
    """Answers with REAL tokens, whatever the bound is; takes the last quarter only when the lesson is learned.

    learned: whether it is. Lessons take their time on a busy machine.
    """

    def __init__(self, learned: Callable[[], bool]) -> None:
        super().__init__(ReplaySettings(slots=4, real_time=4.0))
        self._learned = learned
        self._taken = 0

    async def submit(self, item: WorkItem) -> None:
        await super().submit(item)
        self._taken += 1
        while self._taken == COUNT - QUARTER and not self._learned():
            await asyncio.sleep(0.01)

    def _answer(self, item: WorkItem) -> Result:
        return super()._answer(msgspec.structs.replace(item, known_output_tokens=REAL))


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("blendrun.runner.dispatch._LEARN_SECONDS", 0.05)
    monkeypatch.setenv("BLENDRUN_DATA", str(tmp_path / "data"))


def planned_outputs(out: Path, folder: Path, *, teachable: bool = True) -> list[int]:
    """What was expected of each request when it was handed over, in that order."""
    plans: list[RunPlan] = []
    rows = [line(f"id {row}", f"{'red ' * 30}{row}", max_tokens=BOUND) for row in range(COUNT)]
    jobs = write(folder / f"{out.stem}.jobs.jsonl", *rows)
    model = resolve_model("smollm2-135m", platform="cpu")
    planner = RunPlanner(model, OrderName.BLENDED, limits=EngineLimits(32_768, 4, 4096))

    def plan_once(*given: Any) -> RunPlan:
        plans.append(planner.plan(*given))
        return plans[-1]

    def learned() -> bool:
        learning = plans[0].learning
        assert learning is not None
        return not teachable or mean(map(learning.feeder.expected, range(COUNT))) <= 1.4 * REAL

    summary = run(out, jobs, engine=lambda: Short(learned), planner=plan_once, model_identity=model.identity)
    assert summary.counts.completed == COUNT
    assert summary.tokens.output == COUNT * REAL
    (plan,) = plans
    assert plan.learning is not None
    records = lines_of(out.with_name(f"{out.name}.blendrun") / "records.jsonl")
    return [record["planned_output"] for record in sorted(records, key=lambda each: each["index"])]


def test_what_is_handed_over_late_is_expected_to_be_short(tmp_path: Path) -> None:
    planned = planned_outputs(tmp_path / "first.jsonl", tmp_path)
    assert mean(planned[:4]) > 10 * REAL, "nobody knew"
    assert mean(planned[-QUARTER:]) == pytest.approx(REAL, rel=0.5)


def test_the_next_run_knows_it_from_the_start(tmp_path: Path) -> None:
    planned_outputs(tmp_path / "first.jsonl", tmp_path)
    again = planned_outputs(tmp_path / "second.jsonl", tmp_path)
    assert mean(again) == pytest.approx(REAL, rel=0.5)


def test_where_a_lesson_fails_the_run_goes_on_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from blendrun.errors import UsageError
    from blendrun.planner.run_plan import Learning

    def fails(*_: object) -> None:
        raise UsageError("no such lesson")

    monkeypatch.setattr(Learning, "plan_again", fails)
    planned = planned_outputs(tmp_path / "out.jsonl", tmp_path, teachable=False)
    assert len(set(planned)) == 1, "the first expectation stands"
    summary = msgspec.json.decode((tmp_path / "out.jsonl.blendrun" / "summary.json").read_bytes())
    assert "lengths are learned no further: no such lesson" in summary["notes"]
