"""`--partial FILE`: the answers so far, whole lines, and after the end all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from blendrun.errors import EngineUnavailableError, OutputUnavailableError, UsageError
from blendrun.jobs.same import Sameness
from blendrun.store.folder import StateFolder
from blendrun.store.journal_tail import JournalTail
from blendrun.store.partial import partial_target
from tests.runner.runner_job import lines_of, no_engine, run
from tests.runner.test_copies import Counting, job


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    return job(tmp_path / "jobs.jsonl")


def with_partial(out: Path, jobs: Path, file: Path, **changes: Any) -> None:
    target = partial_target(file, StateFolder(out), (jobs,), overwrite=changes.get("overwrite", False))
    run(out, jobs, **{"engine": lambda: Counting([]), "same": Sameness(), "partial": target, **changes})


def test_after_the_end_it_has_the_lines_of_the_output(tmp_path: Path, out: Path, jobs: Path) -> None:
    file = tmp_path / "partial.jsonl"
    with_partial(out, jobs, file)
    assert sorted(file.read_bytes().splitlines()) == sorted(out.read_bytes().splitlines())


def test_a_run_that_was_ended_leaves_what_it_has_and_the_next_one_goes_on(
    tmp_path: Path, out: Path, jobs: Path
) -> None:
    file = tmp_path / "partial.jsonl"
    with pytest.raises(EngineUnavailableError):
        with_partial(out, jobs, file, engine=lambda: Counting([], 20))
    some = file.read_bytes()
    assert some.endswith(b"\n")
    assert len(lines_of(file)) >= 20
    assert some.splitlines() == list(JournalTail(StateFolder(out).journal).new())
    # As a kill may leave it.
    file.write_bytes(some[:-7])
    with_partial(out, jobs, file)
    assert file.read_bytes().startswith(some)
    assert sorted(file.read_bytes().splitlines()) == sorted(out.read_bytes().splitlines())


def test_asked_for_later_it_is_written_from_what_is_there(tmp_path: Path, out: Path, jobs: Path) -> None:
    run(out, jobs)
    with_partial(out, jobs, tmp_path / "late.jsonl", engine=no_engine)
    assert len(lines_of(tmp_path / "late.jsonl")) == 100


def test_failed_lines_are_not_in_it(tmp_path: Path, out: Path, jobs: Path) -> None:
    with_partial(out, jobs, tmp_path / "partial.jsonl", engine=lambda: Counting([], fail_every=3))
    assert sorted(lines_of(tmp_path / "partial.jsonl"), key=str) == sorted(lines_of(out), key=str)
    assert len(lines_of(out)) < 100


def test_nothing_of_others_is_written_over(tmp_path: Path, out: Path, jobs: Path) -> None:
    file = tmp_path / "partial.jsonl"
    file.write_text("mine\n")
    with pytest.raises(OutputUnavailableError, match="--partial"):
        with_partial(out, jobs, file)
    with_partial(out, jobs, file, overwrite=True)
    assert len(lines_of(file)) == 100
    # Of another run it is somebody else's.
    with pytest.raises(OutputUnavailableError, match="--partial"):
        with_partial(out.with_name("other"), jobs, file)
    for own in (jobs, out, out.parent / "out.jsonl.blendrun" / "journal", Path("/dev/null")):
        with pytest.raises((UsageError, OutputUnavailableError)):
            with_partial(out.with_name("third") if own != out else out, jobs, own)
