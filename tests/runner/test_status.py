"""status.json and summary.json of runs that end in every way, against their published schemas."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from blendrun.errors import BlendrunError, ManifestMismatchError
from blendrun.events import EngineStats, Expected, PhaseStarted, Progress
from blendrun.report.terminal.status import status_lines
from blendrun.runner.replica import Patience
from blendrun.store.status import StatusFile, read
from tests.runner.interrupted import Interrupted, die, signalled
from tests.runner.runner_job import line, run, write

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"
LINES = [line(f"id {row}", f"question {row}") for row in range(20)]


def state_of(out: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out.with_name(f"{out.name}.blendrun") / name).read_bytes())
    jsonschema.validate(found, json.loads((SCHEMAS / name).read_bytes()))
    return found


def records_of(out: Path) -> list[dict[str, Any]]:
    """The lines of records.jsonl, each of them valid."""
    schema = json.loads((SCHEMAS / "record.json").read_bytes())
    path = out.with_name(f"{out.name}.blendrun") / "records.jsonl"
    records = [json.loads(text) for text in path.read_bytes().splitlines()]
    for record in records:
        jsonschema.validate(record, schema)
    return records


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    return write(tmp_path / "jobs.jsonl", *LINES, b"no json")


def test_a_finished_run(jobs: Path, out: Path) -> None:
    run(out, jobs)
    summary, status = state_of(out, "summary.json"), state_of(out, "status.json")
    assert (status["object"], status["status"], status["blendrun"]["exit_code"]) == ("batch", "completed", 3)
    assert status["request_counts"] == {"total": 21, "completed": 20, "failed": 1}
    assert status["output_file_id"] == str(out)
    assert status["error_file_id"] == f"{out}.errors.jsonl"
    assert status["usage"]["input_tokens"] == summary["tokens"]["prompt"]
    assert sorted(record["row"] for record in records_of(out)) == list(range(20))
    assert status["created_at"] <= status["in_progress_at"] <= status["finalizing_at"] <= status["completed_at"]


def test_a_drained_run_and_its_end(jobs: Path, out: Path) -> None:
    with pytest.raises(BlendrunError):
        run(out, jobs, engine=lambda: Interrupted(5, signalled(signal.SIGTERM)), patience=Patience(drain=0.0))
    assert state_of(out, "summary.json")["status"] == "drained"
    drained = state_of(out, "status.json")
    assert (drained["status"], drained["blendrun"]["exit_code"]) == ("cancelled", 75)
    assert drained["cancelling_at"] <= drained["cancelled_at"]
    assert drained["output_file_id"] is None
    before = records_of(out)
    assert 5 <= len(before) < 20
    run(out, jobs)
    records = records_of(out)
    assert records[: len(before)] == before
    assert {record["row"] for record in records if record["error"] is None} == set(range(20))
    finished = state_of(out, "status.json")
    assert finished["status"] == "completed"
    assert (finished["id"], finished["created_at"]) == (drained["id"], drained["created_at"])


def test_a_failed_run(jobs: Path, out: Path) -> None:
    with pytest.raises(BlendrunError):
        run(out, jobs, engine=lambda: Interrupted(5, die))
    assert state_of(out, "summary.json")["exit_code"] == 69
    failed = state_of(out, "status.json")
    assert (failed["status"], failed["blendrun"]["exit_code"]) == ("failed", 69)
    assert failed["request_counts"]["completed"] == 5
    assert len([record for record in records_of(out) if record["error"] is None]) == 5


def test_an_input_that_cannot_be_run(tmp_path: Path, out: Path) -> None:
    with pytest.raises(BlendrunError):
        run(out, write(tmp_path / "empty.jsonl"))
    assert state_of(out, "status.json")["blendrun"]["exit_code"] == 65


def test_a_refused_invocation_says_nothing_of_the_run_before(jobs: Path, out: Path) -> None:
    run(out, jobs)
    before = state_of(out, "status.json")
    with pytest.raises(ManifestMismatchError):
        run(out, jobs, answer_settings={"dtype": "float16"})
    assert state_of(out, "status.json") == before


def test_the_time_that_is_left_follows_the_steps(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    begun = time.time() - 40.2
    status = StatusFile(path, model="m", inputs=("jobs.jsonl",), output=tmp_path / "out.jsonl", begun_at=begun)
    status.open()
    for event in (
        Expected(1000.0, 100, None, 50.0),
        PhaseStarted("load", "engine"),
        PhaseStarted("run", "10 requests"),
        EngineStats(5, 0, 5, 0.0, 1.0, 1, 10, 1, 0, 200.0, 100.0),
        Progress(0, 10, "requests"),
    ):
        status.take(event)
    found = read(path)
    assert found is not None
    assert found.blendrun.left_seconds == pytest.approx((1800.0 / 1.15, 1800.0 * 1.15), rel=0.02)
    assert "time left: 25 min" in "\n".join(status_lines(found, found.blendrun.updated_at))
    assert "began 40 s ago" in status_lines(found, found.blendrun.updated_at)
    status.take(PhaseStarted("write"))
    ended = read(path)
    assert ended is not None
    assert ended.blendrun.left_seconds is None
