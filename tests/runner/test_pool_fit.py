"""The engine's pool is another one than was planned with: the plan follows, and the person is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from blendrun.cost.capacity import EngineLimits
from blendrun.events import Event, Note
from blendrun.models.resolve import resolve_model
from blendrun.names import OrderName
from blendrun.planner.run_planner import RunPlanner
from tests.runner.runner_job import line, lines_of, run, write

pytestmark = pytest.mark.usefixtures("loops")

COUNT = 40
# The replay engine's pool has so many tokens a slot.
SLOT = 8192


def notes_of(folder: Path, order: OrderName, slots: int) -> list[str]:
    """What a run said whose plan was made for four slots."""
    jobs = write(folder / "jobs.jsonl", *(line(f"id {row}", "red " * (row % 7) + str(row)) for row in range(COUNT)))
    model = resolve_model("smollm2-135m", platform="cpu")
    planner = RunPlanner(model, order, limits=EngineLimits(4 * SLOT, 4, 4096))
    events: list[Event] = []
    out = folder / "out.jsonl"
    run(out, jobs, engine={"slots": slots}, events=events, planner=planner.plan, model_identity=model.identity)
    assert sorted(answer["custom_id"] for answer in lines_of(out)) == sorted(f"id {row}" for row in range(COUNT))
    return [event.text for event in events if isinstance(event, Note)]


@pytest.mark.parametrize(
    ("order", "slots", "said"),
    [
        (OrderName.BLENDED, 1, ["the engine's pool holds 8,192 tokens, not the 32,768 that were planned with"]),
        (OrderName.BLENDED, 4, []),
        (OrderName.SORTED, 1, []),
    ],
)
def test_a_blend_is_cut_for_the_engine_s_own_pool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: OrderName, slots: int, said: list[str]
) -> None:
    monkeypatch.setenv("BLENDRUN_DATA", str(tmp_path / "data"))
    found = [text for text in notes_of(tmp_path, order, slots) if "pool" in text]
    assert found == [f"{text}: blended anew" for text in said]
