"""Two real engines on one job, one of them killed: every line once, by whoever is left."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import orjson
import pytest

from tests.runtime import requests
from tests.runtime.conftest import BLENDRUN, read_lines
from tests.runtime.test_kill import NOTICE_S, alive_in_group, children, wait_for

pytestmark = pytest.mark.runtime

GROUPS, EACH = 8, 5
ANSWERED_BEFORE_THE_KILL = 4


def write_job(path: Path) -> list[str]:
    """Groups that share a passage. Returns the ids in order."""
    lines = [
        requests.chat(
            f"{group} {number}",
            [{"role": "user", "content": f"Text {group}. {requests.PASSAGE}\nSay {number} in words."}],
            max_tokens=16,
        )
        for number in range(EACH)
        for group in range(GROUPS)
    ]
    path.write_bytes(b"\n".join(map(orjson.dumps, lines)) + b"\n")
    return [line["custom_id"] for line in lines]


@pytest.mark.timeout(900)
def test_one_of_two_is_killed_half_way_and_every_line_comes_once(tmp_path: Path) -> None:
    job, output = tmp_path / "job.jsonl", tmp_path / "answers.jsonl"
    ids = write_job(job)
    state = tmp_path / "answers.jsonl.blendrun"
    command = [BLENDRUN, "run", str(job), "--model", "smollm2-135m", "--device", "cpu", "-o", str(output)]
    command += ["--replicas", "2", "--max-restarts", "0"]
    command += ["--engine-arg", "max_running_requests=2", "--engine-arg", "max_total_tokens=2048"]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    journal = state / "journal"

    def answered() -> bool:
        return journal.exists() and journal.read_bytes().count(b"\n") > ANSWERED_BEFORE_THE_KILL

    assert wait_for(lambda: answered() or run.poll() is not None, 400)
    assert run.poll() is None, run.communicate()[1]
    engines = children(run.pid)
    assert len(engines) == 2
    os.killpg(engines[1], signal.SIGKILL)
    _, said = run.communicate(timeout=400)
    assert run.returncode == 0, said
    assert "replica 2 is given up, the others go on with its requests" in said
    answers = read_lines(output)
    assert [answer["custom_id"] for answer in answers] == ids
    assert all(answer["response"]["status_code"] == 200 for answer in answers)
    records = read_lines(state / "records.jsonl")
    assert sorted(record["custom_id"] for record in records) == sorted(ids)
    summary = orjson.loads((state / "summary.json").read_bytes())
    assert [restart["replica"] for restart in summary["restarts"]] == [2]
    # Each began with groups of its own.
    cached = sum(record["cached"] for record in records) / sum(record["prompt"] for record in records)
    assert cached > 0.3
    assert (state / "steps.jsonl").exists()
    assert (state / "engine.2.log").exists()
    for engine in engines:
        assert wait_for(lambda group=engine: not alive_in_group(group), NOTICE_S)  # type: ignore[misc]
