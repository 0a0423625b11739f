"""Rows of Ray Data come in the order that `blendrun plan` gives their lines, and each gets its answer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blendrun.errors import UsageError
from blendrun.jobs import parse_line
from blendrun.ray_data.rows import request_line
from tests.cli.command import blendrun, lines_of
from tests.cluster.conftest import LOOPBACK, Nodes
from tests.runtime.test_replicas import write_job

pytestmark = pytest.mark.timeout(400)
ROOT = Path(__file__).parents[2]


def pipeline(nodes: Nodes, name: str, jobs: Path, out: Path) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "tests.cluster.pipelines", name, str(jobs), str(out)]
    env = os.environ | LOOPBACK | {"RAY_ADDRESS": nodes.address}
    finished = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, timeout=380)
    assert finished.returncode == 0, finished.stderr
    return lines_of(out)


def planned(jobs: Path, out: Path) -> list[str]:
    """Ids in the plan's order."""
    blendrun("plan", jobs, "--model", "smollm2-135m", "--order-out", out, check=True, timeout=200)
    return out.read_text().splitlines()


def test_rows_come_in_the_order_of_the_plan(nodes: Nodes, tmp_path: Path) -> None:
    jobs = tmp_path / "jobs.jsonl"
    given = write_job(jobs)
    rows = pipeline(nodes, "blended", jobs, tmp_path / "rows.jsonl")
    found = [row["custom_id"] for row in rows]
    assert found == planned(jobs, tmp_path / "order.txt")
    assert found != given and sorted(found) == sorted(given)
    assert [row["blend_place"] for row in rows] == list(range(len(given)))
    bodies = {line["custom_id"]: line["body"] for line in lines_of(jobs)}
    assert all(row["body"] == bodies[row["custom_id"]] for row in rows)


def test_parts_are_runs_of_rows_that_keep_groups_together(nodes: Nodes, tmp_path: Path) -> None:
    jobs = tmp_path / "jobs.jsonl"
    given = write_job(jobs)
    rows = pipeline(nodes, "parts", jobs, tmp_path / "rows.jsonl")
    assert sorted(row["custom_id"] for row in rows) == sorted(given)
    part = [row["blend_part"] for row in rows]
    assert part == sorted(part) and set(part) == {0, 1, 2}
    where: dict[str, set[int]] = {}
    for row in rows:
        where.setdefault(row["custom_id"].split()[0], set()).add(row["blend_part"])
    # Three arcs of a ring are cut in three places.
    assert sum(len(places) > 1 for places in where.values()) <= 4


@pytest.mark.runtime
def test_an_engine_answers_the_rows_of_a_pipeline(nodes: Nodes, tmp_path: Path) -> None:
    jobs = tmp_path / "jobs.jsonl"
    given = write_job(jobs)
    rows = pipeline(nodes, "answered", jobs, tmp_path / "rows.jsonl")
    assert sorted(row["mine"] for row in rows) == sorted(given)
    assert all(row["error"] is None and "chat.completion" in row["response"] for row in rows)
    assert all(0 < row["output_tokens"] <= 8 for row in rows)
    assert [row["blend_place"] for row in rows] == list(range(len(given)))


class TestRequestLine:
    @pytest.mark.parametrize(
        ("row", "url"),
        [
            ({"messages": [{"role": "user", "content": "a"}], "max_tokens": 3}, "/v1/chat/completions"),
            ({"prompt": "a"}, "/v1/completions"),
            ({"body": {"prompt": "a"}, "url": None}, "/v1/completions"),
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
