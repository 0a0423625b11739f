"""A job in shards by the installed command, and its answers put together."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.command import REPLAY, blendrun, environment, ids, line, write_jobs
from tests.good_bodies import BODIES_OF_ALL_URLS

SHARDS = 3


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    """Good lines, bad ones, and a duplicate far from its first."""
    path = tmp_path / "jobs.jsonl"
    rows = [line(f"id {row}", f"question {row}") if row % 7 else b"no json" for row in range(40)]
    path.write_bytes(b"\n".join([*rows, b"", line("id 1", "again"), b""]))
    return path


def shard(jobs: Path, number: int, *more: str, count: int = SHARDS) -> int:
    return blendrun(
        "run", jobs, *REPLAY, "-q", "-o", jobs.parent / "out.jsonl", "--shard", f"{number}/{count}", *more
    ).returncode


def test_shards_put_together_are_the_run_of_the_whole(jobs: Path) -> None:
    folder = jobs.parent
    assert [shard(jobs, number) for number in (2, 3, 1)] == [3, 3, 3]
    parts = [ids(folder / f"out.{number}-of-3.jsonl") for number in (1, 2, 3)]
    assert min(map(len, parts)) >= 8
    merged = blendrun("merge", folder / "out.jsonl")
    assert merged.returncode == 3
    assert "3 shards, 34 answers" in merged.stderr
    assert blendrun("run", jobs, *REPLAY, "-q", "-o", folder / "whole.jsonl").returncode == 3
    assert (folder / "out.jsonl").read_bytes() == (folder / "whole.jsonl").read_bytes()
    assert (folder / "out.jsonl.errors.jsonl").read_bytes() == (folder / "whole.jsonl.errors.jsonl").read_bytes()
    # Once more, with the errors known.
    assert blendrun("merge", "-q", "--errors-ok", folder / "out.jsonl").stderr == ""


def test_without_errors_there_is_no_errors_file(tmp_path: Path) -> None:
    jobs = write_jobs(tmp_path / "jobs.jsonl", 10)
    assert [shard(jobs, number) for number in (1, 2, 3)] == [0, 0, 0]
    assert blendrun("merge", tmp_path / "out.jsonl").returncode == 0
    assert ids(tmp_path / "out.jsonl") == [f"id {row}" for row in range(10)]
    assert not (tmp_path / "out.jsonl.errors.jsonl").exists()


def test_more_shards_than_lines(tmp_path: Path) -> None:
    jobs = write_jobs(tmp_path / "jobs.jsonl", 2)
    assert [shard(jobs, number, count=5) for number in range(1, 6)] == [0] * 5
    assert blendrun("merge", tmp_path / "out.jsonl").returncode == 0
    assert ids(tmp_path / "out.jsonl") == ["id 0", "id 1"]


def test_the_same_command_finds_its_shard_finished_and_another_is_refused(jobs: Path) -> None:
    assert shard(jobs, 2) == 3
    again = blendrun("run", jobs, *REPLAY, "-o", jobs.parent / "out.jsonl", "--shard", "2/3")
    assert "finished before" in again.stderr and "by an earlier run, in" in again.stderr
    state = jobs.parent / "out.2-of-3.jsonl.blendrun"
    shutil.copytree(state, jobs.parent / "out.1-of-3.jsonl.blendrun")
    shutil.copy(jobs.parent / "out.2-of-3.jsonl", jobs.parent / "out.1-of-3.jsonl")
    refused = blendrun("run", jobs, *REPLAY, "-o", jobs.parent / "out.jsonl", "--shard", "1/3")
    assert refused.returncode == 78
    assert "the shard ('2/3' then, '1/3' now)" in refused.stderr or "the shard (2/3 then, 1/3 now)" in refused.stderr


def test_shards_that_are_missing_are_named(jobs: Path) -> None:
    shard(jobs, 2)
    found = blendrun("merge", jobs.parent / "out.jsonl")
    assert found.returncode == 75
    assert "not finished yet: 1, 3 of 3" in found.stderr
    assert not (jobs.parent / "out.jsonl").exists()


def test_shards_of_other_jobs_or_settings_are_not_mixed(jobs: Path) -> None:
    other = write_jobs(jobs.parent / "other.jsonl", 41)
    assert shard(jobs, 1) == shard(jobs, 2) == 3
    command = ("run", other, *REPLAY, "-q", "-o", jobs.parent / "out.jsonl", "--shard", "3/3")
    assert blendrun(*command).returncode == 0
    found = blendrun("merge", jobs.parent / "out.jsonl")
    assert found.returncode == 78
    assert "shard 3 is of another job" in found.stderr


def test_two_divisions_side_by_side_are_refused(jobs: Path) -> None:
    shard(jobs, 1)
    shard(jobs, 1, count=2)
    found = blendrun("merge", jobs.parent / "out.jsonl")
    assert found.returncode == 2
    assert "in 2, 3 parts" in found.stderr


def test_a_file_that_was_changed_is_refused(jobs: Path) -> None:
    for number in (1, 2, 3):
        shard(jobs, number)
    part = jobs.parent / "out.2-of-3.jsonl"
    part.write_bytes(part.read_bytes().partition(b"\n")[2])
    found = blendrun("merge", jobs.parent / "out.jsonl")
    assert found.returncode == 65
    assert f"{part} has" in found.stderr
    assert not (jobs.parent / "out.jsonl").exists()


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "-1/3", "1/0"])
def test_a_shard_that_makes_no_sense(jobs: Path, text: str) -> None:
    found = blendrun("run", jobs, *REPLAY, "--shard", text)
    assert found.returncode == 2
    assert "--shard takes i/n" in found.stderr


def test_the_place_in_a_slurm_array(jobs: Path) -> None:
    def task(**variables: str) -> str:
        run = blendrun(
            *("run", jobs, *REPLAY, "-q", "--errors-ok", "-o", jobs.parent / "out.jsonl", "--shard", "slurm"),
            env=environment(**variables),
        )
        return run.stderr if run.returncode else ""

    array = {"SLURM_ARRAY_TASK_MIN": "10", "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_STEP": "5"}
    assert all(not task(**array, SLURM_ARRAY_TASK_ID=place) for place in ("10", "15", "20"))
    assert blendrun("merge", "--errors-ok", jobs.parent / "out.jsonl").returncode == 0
    assert "no task of a Slurm array" in task()
    assert "has no place" in task(**array, SLURM_ARRAY_TASK_ID="30")


def test_a_drained_shard_goes_on_with_its_rows(jobs: Path) -> None:
    assert shard(jobs, 1, "--deadline", "1s", "--engine-arg", "real_time=1", "--engine-arg", "slots=1") in (3, 75)
    state = jobs.parent / "out.1-of-3.jsonl.blendrun"
    assert json.loads((state / "manifest.json").read_bytes())["shard"] == "1/3"
    assert shard(jobs, 1) == 3


def test_lines_of_every_url_in_shards(tmp_path: Path) -> None:
    """Embeddings, scores, other APIs and chats: one file, whoever answers which part of it."""
    bodies = BODIES_OF_ALL_URLS
    jobs = tmp_path / "jobs.jsonl"
    rows = [
        json.dumps({"custom_id": f"{url} {row}", "url": url, "body": body if row % 5 else {}})
        for row in range(10)
        for url, body in bodies.items()
    ]
    jobs.write_text("\n".join(rows))
    assert {shard(jobs, number) for number in (1, 2, 3)} <= {0, 3}
    assert min(len(ids(tmp_path / f"out.{number}-of-3.jsonl")) for number in (1, 2, 3)) > 10
    assert blendrun("merge", tmp_path / "out.jsonl").returncode == 3
    assert blendrun("run", jobs, *REPLAY, "-q", "-o", tmp_path / "whole.jsonl").returncode == 3
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert len(ids(tmp_path / "whole.jsonl")) == 8 * len(bodies)


def test_shards_of_another_dedupe_are_told_so(tmp_path: Path) -> None:
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_bytes(b"".join(line(f"id {row}", f"q {row % 5}") + b"\n" for row in range(12)))
    for number, dedupe in ((1, "on"), (2, "off")):
        words = ("--shard", f"{number}/2", "--dedupe", dedupe, "-o", "out.jsonl", *REPLAY)
        assert blendrun("run", "jobs.jsonl", *words, cwd=tmp_path).returncode == 0
    done = blendrun("merge", "out.jsonl", cwd=tmp_path)
    assert (done.returncode, "(another --dedupe, " in done.stderr) == (78, True), done.stderr


def test_what_a_merge_would_not_replace_costs_no_answer(tmp_path: Path) -> None:
    jobs = write_jobs(tmp_path / "jobs.jsonl", 4)
    for number in (1, 2):
        words = ("--shard", f"{number}/2", "-o", "out.jsonl", *REPLAY)
        assert blendrun("run", jobs, *words, cwd=tmp_path).returncode == 0
    (tmp_path / "out.jsonl").write_text("mine")
    done = blendrun("merge", "out.jsonl", cwd=tmp_path)
    assert done.returncode == 73
    assert "The shards still have all answers" in done.stderr
    assert ".blendrun" not in done.stderr
