"""`blendrun run --engine http://...` as people type it."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.command import blendrun, environment, start
from tests.processes import wait_for
from tests.runner.faulty_server import MODEL, Status, faulty_server
from tests.runner.runner_job import line, lines_of, write

COUNT = 12
IDS = [f"id {row}" for row in range(COUNT)]


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    return write(tmp_path / "jobs.jsonl", *(line(name, f"question {row}") for row, name in enumerate(IDS)))


def test_without_a_model_rows_go_as_they_stand_and_resume_finds_them(jobs: Path, out: Path) -> None:
    with faulty_server(lambda text, _: Status(400) if text == "question 3" else None) as (address, seen):
        first = blendrun("run", jobs, "--engine", f"{address}/v1", "-o", out)
        again = blendrun("run", jobs, "--engine", f"{address}/v1", "-o", out)
    assert (first.returncode, again.returncode) == (3, 3), first.stderr
    assert len(seen.asked) == COUNT
    assert {body["model"] for body in seen.bodies} == {MODEL}
    assert [each["custom_id"] for each in lines_of(out)] == [name for name in IDS if name != "id 3"]


def test_another_server_goes_on_with_what_one_began(jobs: Path, out: Path) -> None:
    with faulty_server(lambda *_: Status(429)) as (address, _):
        failed = blendrun("run", jobs, "--engine", address, "-o", out, "--engine-arg", "wait=0", "--max-restarts", "0")
    assert failed.returncode == 69
    assert "has refused every request" in failed.stderr
    with faulty_server() as (one, first), faulty_server() as (two, second):
        finished = blendrun("run", jobs, "--engine", f"{one},{two}", "-o", out)
    assert finished.returncode == 0, finished.stderr
    assert len(first.asked) + len(second.asked) == COUNT
    assert [each["custom_id"] for each in lines_of(out)] == IDS


def test_a_signal_lets_what_is_in_flight_come_back(jobs: Path, out: Path) -> None:
    with faulty_server(work=1.0) as (address, seen):
        command: list[str | Path] = ["run", jobs, "--engine", address, "-o", out, "--engine-arg", "concurrency=3"]
        run = start(*command)
        wait_for(lambda: seen.running > 0, run)
        run.send_signal(signal.SIGTERM)
        _, said = run.communicate()
        assert run.returncode == 75, said
        begun = len(seen.asked)
        assert 0 < begun < COUNT
        assert blendrun(*command).returncode == 0
    # None was asked twice.
    assert len(seen.asked) == COUNT
    assert [each["custom_id"] for each in lines_of(out)] == IDS


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--engine", "vllm"], "addresses such as http://host:30000"),
        (["--engine", "http://127.0.0.1:1", "--tp", "2"], "a server decides that itself"),
        (["--engine", "http://127.0.0.1:1", "--ray", "auto"], "servers run where they are"),
        (["--engine", "http://127.0.0.1:1", "--replicas", "3"], "each address is a replica, and 1 are given"),
        (["--engine", "http://127.0.0.1:1", "--overlap", "mixed"], "a server decides that itself"),
        (["--engine", "http://127.0.0.1:1", "--order", "blended"], "give --model"),
        (["--engine", "http://127.0.0.1:1", "--engine-arg", "mem_fraction_static=0.9"], "--engine-arg for servers"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_go_with_servers_is_said(jobs: Path, out: Path, options: list[str], said: str) -> None:
    refused = blendrun("run", jobs, "-o", out, *options)
    assert refused.returncode == 2
    assert said in " ".join(refused.stderr.split())
    assert not Path(f"{out}.blendrun").exists()


def test_the_answers_of_two_models_do_not_mix(jobs: Path, out: Path) -> None:
    with faulty_server(lambda text, _: Status(400) if text == "question 3" else None, models=["one"]) as (address, _):
        assert blendrun("run", jobs, "--engine", address, "-o", out).returncode == 3
    with faulty_server(models=["two"]) as (address, seen):
        refused = blendrun("run", jobs, "--engine", address, "-o", out, "--retry-errors")
    assert refused.returncode == 78, refused.stderr
    assert seen.asked == []


def test_servers_of_different_models_are_refused(jobs: Path, out: Path) -> None:
    with faulty_server(models=["one"]) as (first, _), faulty_server(models=["two"]) as (second, _):
        refused = blendrun("run", jobs, "-o", out, "--engine", f"{first},{second}")
    assert refused.returncode == 2
    assert "different models: one; two" in refused.stderr


def test_a_proxy_of_the_environment_is_not_asked_for_a_local_server(jobs: Path, out: Path) -> None:
    with faulty_server() as (address, _), faulty_server() as (proxy, seen):
        proxies = environment(HTTP_PROXY=proxy, http_proxy=proxy, ALL_PROXY=proxy)
        assert blendrun("run", jobs, "--engine", address, "-o", out, env=proxies).returncode == 0
    assert seen.asked == []
