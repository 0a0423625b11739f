"""Two real engines on one job, one of them killed: every line once, by whoever is left."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import orjson
import pytest

from tests.command import lines_of, start
from tests.processes import children, wait_for, wait_for_end
from tests.runtime.grouped_job import half_way, write_job

pytestmark = [pytest.mark.runtime, pytest.mark.timeout(1800)]


def test_one_of_two_is_killed_half_way_and_every_line_comes_once(tmp_path: Path, tiny_model: Path) -> None:
    job, output = tmp_path / "job.jsonl", tmp_path / "answers.jsonl"
    ids = write_job(job, groups=8, each=5, tokens=160)
    state = tmp_path / "answers.jsonl.blendrun"
    command: list[str | Path] = ["run", job, "--model", tiny_model, "--device", "cpu", "-o", output]
    command += ["--replicas", "2", "--max-restarts", "0"]
    command += ["--engine-arg", "max_running_requests=2", "--engine-arg", "max_total_tokens=2048"]
    run = start(*command)
    wait_for(lambda: half_way(state, answers=4), run)
    engines = children(run.pid)
    assert len(engines) == 2
    os.killpg(engines[1], signal.SIGKILL)
    said = run.communicate()[1]
    assert run.returncode == 0, said
    assert "replica 2 is given up, the others go on with its requests" in said
    answers = lines_of(output)
    assert [answer["custom_id"] for answer in answers] == ids
    assert all(answer["response"]["status_code"] == 200 for answer in answers)
    records = lines_of(state / "records.jsonl")
    assert sorted(record["custom_id"] for record in records) == sorted(ids)
    summary = orjson.loads((state / "summary.json").read_bytes())
    assert [restart["replica"] for restart in summary["restarts"]] == [2]
    # Each began with groups of its own.
    cached = sum(record["cached"] for record in records) / sum(record["prompt"] for record in records)
    assert cached > 0.3
    assert (state / "steps.jsonl").exists()
    assert (state / "engine.2.log").exists()
    wait_for_end(*engines)
