"""Who may read what a run leaves behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runner.runner_job import line, run, write


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    """A umask that would leave every file open to the group."""
    before = os.umask(0o002)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def jobs(folder: Path) -> Path:
    # The second line fails, so that there is an errors file.
    return write(folder / "jobs.jsonl", line("a"), line("b", rid="mine"))


def test_state_is_its_owners_alone(tmp_path: Path) -> None:
    state = tmp_path / "out.jsonl.blendrun"
    state.mkdir(mode=0o775)
    run(tmp_path / "out.jsonl", jobs(tmp_path), retry_errors=True)
    assert mode(state) == 0o700, "though it was there before"
    files = [path for path in state.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"journal", "manifest.json", "summary.json", "records.jsonl", "lock"}
    assert {path.name: oct(mode(path)) for path in files if mode(path) != 0o600} == {}


def test_answers_and_errors_follow_the_umask(tmp_path: Path) -> None:
    run(tmp_path / "out.jsonl", jobs(tmp_path))
    assert mode(tmp_path / "out.jsonl") == mode(tmp_path / "out.jsonl.errors.jsonl") == 0o664


def test_an_output_that_was_closed_to_others_stays_so(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").touch(mode=0o600)
    run(tmp_path / "out.jsonl", jobs(tmp_path), overwrite=True)
    assert (tmp_path / "out.jsonl").stat().st_size > 0
    assert mode(tmp_path / "out.jsonl") == mode(tmp_path / "out.jsonl.errors.jsonl") == 0o600
