"""A run of few requests waits for no compiler, wherever it plans: at first, for another pool, by what was learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blendrun.cost.capacity import EngineLimits
from blendrun.events import Event, PhaseStarted
from blendrun.jobs.index import index_jobs
from blendrun.jobs.source import open_sources
from blendrun.models.resolve import resolve_model
from blendrun.names import OrderName
from blendrun.planner.run_plan import RunPlan
from blendrun.planner.run_planner import RunPlanner
from blendrun.tree import small
from blendrun.tree.compiled import Kernel
from blendrun.tree.interpreted import SMALL, call, interprets
from tests.planner.test_run_planner import line

POOL = 2048


@pytest.fixture
def nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A process whose loops are not loaded; names of those that were to be, and of "all"."""
    wanted: list[str] = []

    def called(kernel: Kernel[..., Any], *arguments: Any) -> Any:
        if not interprets():
            wanted.append(kernel.function.__name__)
        return call(kernel.function, arguments)

    monkeypatch.setattr(Kernel, "__call__", called)
    monkeypatch.setattr(small, "kernels_loaded", lambda: False)
    monkeypatch.setattr(small, "begin_loading", lambda: wanted.append("all"))
    monkeypatch.setattr(small, "_planned", 0)
    return wanted


def plan(folder: Path, requests: int, replicas: int = 1) -> tuple[RunPlan, list[str]]:
    """A plan, and the phases that were told."""
    path, events = folder / "job.jsonl", list[Event]()
    texts = ("red", "blue", "a long tale of the sea")
    lines = [line(f"r{row}", f"{texts[row % 3] * 20} {row}", max_tokens=256) for row in range(requests)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    model = resolve_model("smollm2-135m", platform="cpu")
    planner = RunPlanner(model, OrderName.BLENDED, limits=EngineLimits(POOL, 4, 512))
    with index_jobs(open_sources([path], folder)) as job:
        if replicas == 1:
            made = planner.plan(job, job.accepted, events.append)
        else:
            made = planner.divide(job, job.accepted, replicas, events.append).whole
    return made, [event.name for event in events if isinstance(event, PhaseStarted)]


def test_a_run_plans_few_requests_without_compiled_loops(tmp_path: Path, nothing_loaded: list[str]) -> None:
    made, phases = plan(tmp_path, 12)
    assert phases == ["tokenise", "tree", "blend", "simulate"]
    fitted = made.fitted(POOL // 2)
    assert fitted is not None and made.costed is not None and fitted.blend is not made.costed.blend
    made.fit(fitted)
    assert made.learning is not None
    for number in range(8):
        made.learning.learner.ended(number, 2)
    assert made.learning.plan_again(made.learning.learner.samples({})) is not None
    assert nothing_loaded == []


def test_for_several_replicas_too(tmp_path: Path, nothing_loaded: list[str]) -> None:
    plan(tmp_path, 12, replicas=2)
    assert nothing_loaded == []


def test_a_process_that_plans_again_begins_to_load_them(tmp_path: Path, nothing_loaded: list[str]) -> None:
    plan(tmp_path, 3)
    plan(tmp_path, 3)
    assert nothing_loaded == ["all"]


def test_many_requests_are_worth_the_compiler(nothing_loaded: list[str]) -> None:
    assert small.is_small(SMALL) and not small.is_small(SMALL + 1)
    small.begin_loading_for(SMALL + 1)
    assert nothing_loaded == ["all"]


def test_where_the_interpreter_cannot_divide_compiled_loops_do(nothing_loaded: list[str]) -> None:
    def work() -> bool:
        if interprets():
            raise ZeroDivisionError
        return bool(np.isinf(1.0 / np.zeros(1))[0])

    with np.errstate(divide="ignore"):
        assert small.run_small(1, work)
