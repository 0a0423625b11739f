"""Two real engines on two nodes of a cluster, one of which is lost half way and replaced: every line comes once."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import orjson
import pytest

from tests.cluster.conftest import LOOPBACK, Nodes, engines, hosts
from tests.runtime.conftest import BLENDRUN, read_lines
from tests.runtime.test_kill import NOTICE_S, alive_in_group, wait_for
from tests.runtime.test_replicas import ANSWERED_BEFORE_THE_KILL, write_job

pytestmark = pytest.mark.runtime


@pytest.mark.timeout(900)
def test_a_node_is_lost_half_way_and_every_line_comes_once(nodes: Nodes, tmp_path: Path) -> None:
    job, output = tmp_path / "job.jsonl", tmp_path / "answers.jsonl"
    ids = write_job(job)
    state = tmp_path / "answers.jsonl.blendrun"
    command = [BLENDRUN, "run", str(job), "--model", "smollm2-135m", "--device", "cpu", "-o", str(output)]
    command += ["--ray", nodes.address]
    command += ["--engine-arg", "max_running_requests=2", "--engine-arg", "max_total_tokens=2048"]
    run = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | LOOPBACK
    )
    journal = state / "journal"

    def answered() -> bool:
        return journal.exists() and journal.read_bytes().count(b"\n") > ANSWERED_BEFORE_THE_KILL

    def both_write() -> bool:
        return all((state / name).exists() for name in ("steps.jsonl", "steps.2.jsonl"))

    assert wait_for(lambda: (answered() and both_write()) or run.poll() is not None, 400)
    assert run.poll() is None, run.communicate()[1]
    began = engines(nodes)
    assert len(began) == 2
    nodes.tell("remove")
    # A process that dies leaves its engine no time.
    assert wait_for(lambda: sum(not alive_in_group(engine) for engine in began) == 1, NOTICE_S)
    nodes.tell("add")
    data, said = run.communicate(timeout=400)
    assert run.returncode == 0, said
    assert data == ""
    assert "the engine is lost with its actor on node" in said
    answers = read_lines(output)
    assert [answer["custom_id"] for answer in answers] == ids
    assert all(answer["response"]["status_code"] == 200 for answer in answers)
    records = read_lines(state / "records.jsonl")
    assert sorted(record["custom_id"] for record in records) == sorted(ids)
    summary = orjson.loads((state / "summary.json").read_bytes())
    assert len(summary["restarts"]) == 1
    # What the engines wrote on their nodes is here.
    cached = sum(record["cached"] for record in records) / sum(record["prompt"] for record in records)
    assert cached > 0.3
    for number in ("", ".2"):
        assert b"smollm2" in (state / f"engine{number}.log").read_bytes()
        assert read_lines(state / f"steps{number}.jsonl")[0]["step"] == 0
    assert wait_for(lambda: not hosts(nodes), NOTICE_S)
    for engine in began:
        assert wait_for(lambda group=engine: not alive_in_group(group), NOTICE_S)  # type: ignore[misc]
