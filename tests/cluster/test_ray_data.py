"""Rows of Ray Data come in the order that `blendrun plan` gives their lines, and each gets its answer."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blendrun.errors import UsageError
from blendrun.jobs.line import parse_line
from blendrun.ray_data.rows import request_line
from tests.cluster.ray_nodes import LOOPBACK, MODEL, Nodes
from tests.command import blendrun, lines_of
from tests.runtime.grouped_job import write_job

pytestmark = pytest.mark.timeout(1800)
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Rows:
    """What the pipelines made of a job. given: ids of its lines. planned: ids in the plan's order."""

    jobs: Path
    folder: Path
    given: list[str]
    planned: list[str]

    def of(self, pipeline: str) -> list[dict[str, Any]]:
        return lines_of(self.folder / pipeline)


@pytest.fixture(scope="module")
def rows(nodes: Nodes, tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Rows:
    folder = tmp_path_factory.mktemp("pipelines")
    jobs = folder / "jobs.jsonl"
    given = write_job(jobs, groups=8, each=5, tokens=16)
    command = [sys.executable, "-m", "tests.cluster.pipelines", str(jobs), str(tiny_model), str(folder)]
    env = os.environ | LOOPBACK | {"RAY_ADDRESS": nodes.address}
    finished = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env)
    assert finished.returncode == 0, finished.stderr
    order = folder / "order.txt"
    assert blendrun("plan", jobs, "--model", MODEL, "--order-out", order).returncode == 0
    return Rows(jobs, folder, given, order.read_text().splitlines())


@pytest.mark.runtime
class TestPipelines:
    def test_rows_come_in_the_order_of_the_plan(self, rows: Rows) -> None:
        found = [row["custom_id"] for row in rows.of("blended")]
        assert found == rows.planned
        assert found != rows.given and sorted(found) == sorted(rows.given)
        assert [row["blend_place"] for row in rows.of("blended")] == list(range(len(rows.given)))
        bodies = {line["custom_id"]: line["body"] for line in lines_of(rows.jobs)}
        assert all(row["body"] == bodies[row["custom_id"]] for row in rows.of("blended"))

    def test_parts_are_runs_of_rows_that_keep_groups_together(self, rows: Rows) -> None:
        found = rows.of("parts")
        assert sorted(row["custom_id"] for row in found) == sorted(rows.given)
        part = [row["blend_part"] for row in found]
        assert part == sorted(part) and set(part) == {0, 1, 2}
        where: dict[str, set[int]] = {}
        for row in found:
            where.setdefault(row["custom_id"].split()[0], set()).add(row["blend_part"])
        # Three arcs of a ring are cut in three places.
        assert sum(len(places) > 1 for places in where.values()) <= 4

    def test_an_engine_answers_the_rows_of_a_pipeline(self, rows: Rows) -> None:
        found = rows.of("answered")
        assert sorted(row["mine"] for row in found) == sorted(rows.given)
        assert all(row["error"] is None and "chat.completion" in row["response"] for row in found)
        assert all(0 < row["output_tokens"] <= 8 for row in found)
        assert [row["blend_place"] for row in found] == list(range(len(rows.given)))


class TestRequestLine:
    @pytest.mark.parametrize(
        ("row", "url"),
        [
            ({"messages": [{"role": "user", "content": "a"}], "max_tokens": 3}, "/v1/chat/completions"),
            ({"prompt": "a"}, "/v1/completions"),
            ({"body": {"prompt": "a"}, "url": None}, "/v1/completions"),
            ({"input": "a"}, "/v1/embeddings"),
            ({"query": "a", "documents": ["b"]}, "/v1/rerank"),
            ({"query": "a", "items": ["b"]}, "/v1/score"),
            ({"body": {"text_1": "a", "text_2": "b"}, "url": "/v1/score"}, "/v1/score"),
            ({"custom_id": "x", "url": "/v1/completions", "body": {"prompt": "a"}}, "/v1/completions"),
        ],
    )
    def test_bodies_and_lines(self, row: dict[str, Any], url: str) -> None:
        line = parse_line(request_line(row, 7, None))
        assert (line.custom_id, line.endpoint.url) == ("7", url)
        assert line.body == row.get("body", row)

    def test_what_a_table_adds_is_not_there(self) -> None:
        message = {"role": "user", "content": "a", "name": None}
        row = {"messages": np.array([message], dtype=object), "max_tokens": np.int64(3), "seed": None}
        line = parse_line(request_line(row, 0, None))
        assert line.body == {"messages": [{"role": "user", "content": "a"}], "max_tokens": 3}

    def test_what_is_no_request_says_what_to_do(self) -> None:
        with pytest.raises(UsageError, match="but text: give to_request"):
            request_line({"text": "a"}, 0, None)
