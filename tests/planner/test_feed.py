"""The order of a run: every accepted row once, what cannot be planned first."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from blendrun.blend.base import OrderName
from blendrun.cost.capacity import EngineLimits
from blendrun.errors import UsageError
from blendrun.jobs import index_jobs, open_sources
from blendrun.models import resolve_model
from blendrun.models.resolve import ResolvedModel
from blendrun.planner.feed import RunPlanner


def line(custom_id: str, prompt: str, **body: object) -> str:
    return json.dumps({"custom_id": custom_id, "url": "/v1/completions", "body": {"prompt": prompt, **body}})


@pytest.fixture(scope="module")
def model() -> ResolvedModel:
    return resolve_model("smollm2-135m", platform="cpu")


def planned(lines: list[str], order: OrderName, model: ResolvedModel, folder: Path) -> tuple[list[int], list[str]]:
    path, warnings, phases = folder / "job.jsonl", [], []
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with index_jobs(open_sources([path], folder)) as job:
        planner = RunPlanner(model, order, EngineLimits(pool_tokens=32_768))
        rows = planner.rows(job, lambda name, _: phases.append(name), lambda *_: None, warnings.append)
    assert phases[0] == "tokenise"
    assert phases[-1] == "blend"
    return rows.tolist(), warnings


@pytest.mark.parametrize("order", [OrderName.SORTED, OrderName.LOF, OrderName.BLENDED])
def test_every_accepted_row_once(order: OrderName, model: ResolvedModel, tmp_path: Path) -> None:
    lines = [line(f"r{row}", f"{'red ' * 40 if row % 2 else 'blue ' * 40} {row}") for row in range(20)]
    lines.insert(5, "not json")
    rows, _ = planned(lines, order, model, tmp_path)
    assert sorted(rows) == [row for row in range(21) if row != 5]


def test_sorted_puts_siblings_side_by_side(model: ResolvedModel, tmp_path: Path) -> None:
    lines = [line(f"r{row}", f"{'red ' * 40 if row % 2 else 'blue ' * 40} {row}") for row in range(20)]
    rows, _ = planned(lines, OrderName.SORTED, model, tmp_path)
    assert len({row % 2 for row in rows[:10]}) == 1


def test_longest_bound_first_where_nothing_else_is_known(model: ResolvedModel, tmp_path: Path) -> None:
    lines = [line(f"r{row}", f"say {row}", max_tokens=10 * (row + 1)) for row in range(8)]
    rows, _ = planned(lines, OrderName.LOF, model, tmp_path)
    assert rows == list(range(7, -1, -1))


def test_what_has_no_prompt_to_plan_comes_first(model: ResolvedModel, tmp_path: Path) -> None:
    lines = [line("a", "hello"), line("b", "word " * 9000), line("c", "hello again")]
    rows, _ = planned(lines, OrderName.SORTED, model, tmp_path)
    assert rows[0] == 1
    assert sorted(rows) == [0, 1, 2]


def test_a_model_without_dimensions_cannot_be_planned(model: ResolvedModel, tmp_path: Path) -> None:
    from dataclasses import replace

    with pytest.raises(UsageError, match="use --order given or shuffled"):
        planned([line("a", "hello")], OrderName.SORTED, replace(model, card=None), tmp_path)
