"""`blendrun run --ray` on a real cluster of two nodes, with engines that answer at once: every line comes once."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from blendrun.installed import install_command
from tests.cluster.ray_nodes import LOOPBACK, Nodes, hosts
from tests.command import REPLAY, await_answers, blendrun, environment, ids, lines_of, start, write_jobs
from tests.processes import wait_for

pytestmark = pytest.mark.timeout(1800)

ENV = environment(**LOOPBACK, RAY_USAGE_STATS_ENABLED="0")
COUNT = 400
IDS = [f"id {row}" for row in range(COUNT)]
# An answer of 100 tokens takes a twelfth of a second.
SLOW = ("--engine-arg", "slots=4", "--engine-arg", "real_time=24")


def on(nodes: Nodes, jobs: Path, out: Path, *options: str) -> list[str | Path]:
    return ["run", jobs, *REPLAY, "--ray", nodes.address, "-o", out, *options]


def nothing_of_ray(stderr: str) -> bool:
    return not any(word in stderr for word in ("raylet", "GCS", "Traceback", "never retrieved", "WARN", "ERROR"))


def test_the_output_is_that_of_a_run_on_one_machine(nodes: Nodes, tmp_path: Path) -> None:
    jobs = write_jobs(tmp_path / "jobs.jsonl", COUNT)
    here, there = tmp_path / "here.jsonl", tmp_path / "there.jsonl"
    assert blendrun("run", jobs, *REPLAY, "-o", here).returncode == 0
    finished = blendrun(*on(nodes, jobs, there), env=ENV, process=True)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == ""
    assert nothing_of_ray(finished.stderr), finished.stderr
    assert there.read_bytes() == here.read_bytes()
    # As many as there are nodes, without being told.
    assert "of 2 replicas" in finished.stderr
    wait_for(lambda: not hosts(nodes))


def test_a_lost_node_that_never_comes_back_is_not_waited_for(nodes: Nodes, tmp_path: Path) -> None:
    jobs, out = write_jobs(tmp_path / "jobs.jsonl", COUNT), tmp_path / "answers.jsonl"
    run = start(*on(nodes, jobs, out, *SLOW), env=ENV)
    await_answers(tmp_path / "answers.jsonl.blendrun" / "journal", COUNT // 4, run)
    assert run.poll() is None, run.communicate()[1]
    nodes.tell("remove")
    try:
        _, said = run.communicate()
    finally:
        nodes.tell("add")
    assert run.returncode == 0, said
    assert "the engine is lost with its actor on node" in said
    assert nothing_of_ray(said), said
    assert ids(out) == IDS
    assert len(lines_of(tmp_path / "answers.jsonl.blendrun" / "records.jsonl")) == COUNT


def test_more_replicas_than_there_is_room_for(nodes: Nodes, tmp_path: Path) -> None:
    jobs, out = write_jobs(tmp_path / "jobs.jsonl", COUNT), tmp_path / "answers.jsonl"
    finished = blendrun(*on(nodes, jobs, out, "--replicas", "3"), env=ENV, process=True)
    assert finished.returncode == 0, finished.stderr
    assert "room for 2 of 3 replicas (1 CPU each); others wait" in finished.stderr
    assert ids(out) == IDS


def test_a_signal_drains_and_the_same_command_resumes(nodes: Nodes, tmp_path: Path) -> None:
    jobs, out = write_jobs(tmp_path / "jobs.jsonl", COUNT), tmp_path / "answers.jsonl"
    journal = tmp_path / "answers.jsonl.blendrun" / "journal"
    run = start(*on(nodes, jobs, out, *SLOW), env=ENV)
    await_answers(journal, 20, run)
    run.send_signal(signal.SIGTERM)
    _, said = run.communicate()
    assert run.returncode == 75, said
    assert "stopping (" in said and nothing_of_ray(said), said
    wait_for(lambda: not hosts(nodes))
    before = journal.read_bytes().count(b"\n")
    finished = blendrun(*on(nodes, jobs, out), env=ENV, process=True)
    assert finished.returncode == 0, finished.stderr
    assert ids(out) == IDS
    assert 20 < before < COUNT
    assert journal.read_bytes().count(b"\n") == COUNT + 1, "a finished request was run again"


def test_a_run_that_is_killed_leaves_no_actor(nodes: Nodes, tmp_path: Path) -> None:
    jobs, out = write_jobs(tmp_path / "jobs.jsonl", COUNT), tmp_path / "answers.jsonl"
    run = start(*on(nodes, jobs, out, *SLOW), env=ENV)
    await_answers(tmp_path / "answers.jsonl.blendrun" / "journal", 5, run)
    wait_for(lambda: len(hosts(nodes)) == 2, run)
    run.kill()
    run.communicate()
    wait_for(lambda: not hosts(nodes))


@pytest.mark.parametrize(
    ("address", "code", "said"),
    [
        ("127.0.0.1:1", 69, "no Ray cluster answers at 127.0.0.1:1"),
        ("local", 2, "start one with `ray start --head`"),
        ("ray://127.0.0.1:10001", 2, "run on a node of the cluster with --ray auto"),
        ("somewhere", 2, "takes HOST:PORT or auto"),
    ],
)
def test_an_address_that_leads_nowhere(tmp_path: Path, address: str, code: int, said: str) -> None:
    jobs = write_jobs(tmp_path / "jobs.jsonl", 1)
    finished = blendrun("run", jobs, *REPLAY, "--ray", address, "-o", tmp_path / "out.jsonl", env=ENV, process=True)
    assert finished.returncode == code, finished.stderr
    assert said in finished.stderr and nothing_of_ray(finished.stderr)
    assert not (tmp_path / "out.jsonl.blendrun").exists()


def test_without_ray_it_says_what_to_install(tmp_path: Path) -> None:
    """A module in front of Ray's that cannot be imported, as where there is none."""
    (tmp_path / "ray.py").write_text("raise ImportError('no ray')\n")
    jobs = write_jobs(tmp_path / "jobs.jsonl", 1)
    own = environment(PYTHONPATH=str(tmp_path))
    finished = blendrun("run", jobs, *REPLAY, "--ray", "auto", env=own, cwd=tmp_path, process=True)
    assert finished.returncode == 2
    assert install_command("ray") in finished.stderr


@pytest.mark.parametrize("arguments", [("nnodes=2",), ("dist_init_addr=1.2.3.4:5",)])
def test_an_engine_over_several_nodes_is_refused(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    jobs = write_jobs(tmp_path / "jobs.jsonl", 1)
    options = [word for argument in arguments for word in ("--engine-arg", argument)]
    finished = blendrun("run", jobs, *REPLAY, "--ray", "auto", "-o", tmp_path / "out.jsonl", *options)
    assert finished.returncode == 2
    assert "with --ray an engine is on one node" in finished.stderr
