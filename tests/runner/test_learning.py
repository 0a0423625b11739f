"""Answers are far shorter than expected: the run learns it on the way, and hands over the rest by what it knows."""

from __future__ import annotations

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


class Short(ReplayEngine):
    """Answers with REAL tokens, whatever the bound is; slow enough for some lessons."""

    def __init__(self) -> None:
        super().__init__(ReplaySettings(slots=4, real_time=4.0))

    def _answer(self, item: WorkItem) -> Result:
        return super()._answer(msgspec.structs.replace(item, known_output_tokens=REAL))


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("blendrun.runner.dispatch._LEARN_SECONDS", 0.05)
    monkeypatch.setenv("BLENDRUN_DATA", str(tmp_path / "data"))


def planned_outputs(out: Path, folder: Path) -> list[int]:
    """What was expected of each request when it was handed over, in that order."""
    plans: list[RunPlan] = []
    rows = [line(f"id {row}", f"{'red ' * 30}{row}", max_tokens=BOUND) for row in range(COUNT)]
    jobs = write(folder / f"{out.stem}.jobs.jsonl", *rows)
    model = resolve_model("smollm2-135m", platform="cpu")
    planner = RunPlanner(model, OrderName.BLENDED, limits=EngineLimits(32_768, 4, 4096))

    def plan_once(*given: Any) -> RunPlan:
        plans.append(planner.plan(*given))
        return plans[-1]

    summary = run(out, jobs, engine=Short, planner=plan_once, model_identity=model.identity)
    assert summary.counts.completed == COUNT
    assert summary.tokens.output == COUNT * REAL
    (plan,) = plans
    assert plan.learning is not None
    records = lines_of(out.with_name(f"{out.name}.blendrun") / "records.jsonl")
    return [record["planned_output"] for record in sorted(records, key=lambda each: each["index"])]


def test_what_is_handed_over_late_is_expected_to_be_short(tmp_path: Path) -> None:
    planned = planned_outputs(tmp_path / "first.jsonl", tmp_path)
    quarter = COUNT // 4
    assert mean(planned[:4]) > 10 * REAL, "nobody knew"
    assert mean(planned[-quarter:]) == pytest.approx(REAL, rel=0.5)


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
    planned = planned_outputs(tmp_path / "out.jsonl", tmp_path)
    assert len(set(planned)) == 1, "the first expectation stands"
    summary = msgspec.json.decode((tmp_path / "out.jsonl.blendrun" / "summary.json").read_bytes())
    assert "lengths are learned no further: no such lesson" in summary["notes"]
