"""Two real engines on two nodes of a cluster, one of which is lost half way and replaced: every line comes once."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import orjson
import pytest

from tests.cluster.ray_nodes import LOOPBACK, Nodes, engines, hosts
from tests.command import lines_of, start
from tests.processes import alive_in_group, wait_for, wait_for_end
from tests.runtime.grouped_job import half_way, write_job

pytestmark = [pytest.mark.runtime, pytest.mark.timeout(1800)]


def test_a_node_is_lost_half_way_and_every_line_comes_once(nodes: Nodes, tmp_path: Path, tiny_model: Path) -> None:
    job, output = tmp_path / "job.jsonl", tmp_path / "answers.jsonl"
    ids = write_job(job, groups=4, each=5, tokens=200)
    # Of other urls: what decodes nothing, and what is a chat in other words.
    score = {"query": "The sky is", "items": [" blue", " green"], "label_token_ids": [504, 3575]}
    others = {"/v1/score": score, "/v1/responses": {"input": "Hi", "max_output_tokens": 4}}
    with job.open("ab") as file:
        file.writelines(orjson.dumps({"custom_id": u, "url": u, "body": b}) + b"\n" for u, b in others.items())
    ids += others
    state = tmp_path / "answers.jsonl.blendrun"
    command: list[str | Path] = ["run", job, "--model", tiny_model, "--device", "cpu", "-o", output]
    command += ["--ray", nodes.address]
    command += ["--engine-arg", "max_running_requests=2", "--engine-arg", "max_total_tokens=2048"]
    run = start(*command, stdout=subprocess.PIPE, env=os.environ | LOOPBACK)
    wait_for(lambda: half_way(state, answers=4), run)
    began = engines(nodes)
    assert len(began) == 2
    nodes.tell("remove")
    # A process that dies leaves its engine no time.
    wait_for(lambda: sum(not alive_in_group(engine) for engine in began) == 1, run)
    nodes.tell("add")
    data, said = run.communicate()
    assert run.returncode == 0, said
    assert data == ""
    assert "the engine is lost with its actor on node" in said
    answers = lines_of(output)
    assert [answer["custom_id"] for answer in answers] == ids
    assert all(answer["response"]["status_code"] == 200 for answer in answers)
    assert [answer["response"]["body"]["object"] for answer in answers[-2:]] == ["scoring", "response"]
    records = lines_of(state / "records.jsonl")
    assert sorted(record["custom_id"] for record in records) == sorted(ids)
    summary = orjson.loads((state / "summary.json").read_bytes())
    assert len(summary["restarts"]) == 1
    # What the engines wrote on their nodes is here.
    cached = sum(record["cached"] for record in records) / sum(record["prompt"] for record in records)
    assert cached > 0.3
    for number in ("", ".2"):
        assert b"tiny" in (state / f"engine{number}.log").read_bytes()
        assert lines_of(state / f"steps{number}.jsonl")[0]["step"] == 0
    wait_for(lambda: not hosts(nodes))
    wait_for_end(*began)
