"""`blendrun status` of runs that work, were killed, or have ended."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.command import await_answers, blendrun, start, write_jobs

SLOW = ("--engine", "replay", "--engine-arg", "slots=1", "--engine-arg", "real_time=4")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def test_a_run_from_its_start_to_a_kill_and_its_end(tmp_path: Path, out: Path) -> None:
    jobs = write_jobs(tmp_path / "jobs.jsonl", 40)
    state = out.with_name("out.jsonl.blendrun")
    run = start("run", jobs, "-o", out, *SLOW)
    await_answers(state / "journal", 2, run)
    working = blendrun("status", out)
    assert working.returncode == 0, working.stderr
    assert f"in_progress (process {run.pid} on " in working.stdout
    assert "of 40" in working.stdout
    run.send_signal(signal.SIGKILL)
    run.communicate()
    assert f"killed: process {run.pid} is gone" in blendrun("status", state).stdout
    assert blendrun("run", jobs, "-o", out, "--engine", "replay").returncode == 0
    ended = blendrun("status", out, "--watch")
    assert ended.stdout.splitlines()[0].startswith("completed, exit code 0")
    assert "requests: 40 of 40 (100.0 %), 0 failed" in ended.stdout
    assert json.loads(blendrun("status", out, "--json").stdout)["status"] == "completed"


def test_where_nothing_ran_it_says_so(out: Path) -> None:
    missing = blendrun("status", out)
    assert missing.returncode == 66
    assert "no status in" in missing.stderr
