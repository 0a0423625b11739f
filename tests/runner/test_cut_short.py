"""Answers that ended at their token limit: counted, listed, an exit code where that is wished, and run again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from blendrun.backends.options import RunOptions
from blendrun.backends.session import exit_code
from blendrun.engine.replay import ReplayEngine, ReplaySettings
from blendrun.errors import InputMissingError
from blendrun.runner.run import execute
from blendrun.store.cut_short import requests_again
from blendrun.store.folder import StateFolder
from blendrun.store.summary import Summary
from tests.command import blendrun
from tests.runner.runner_job import CHAT, lines_of, no_engine, settings, write


def run(out: Path, jobs: Path, **changes: Any) -> Summary:
    """Placeholders of the length that a line states, or cut at its limit."""
    return execute(settings(out, jobs, **changes), lambda *_: ReplayEngine(ReplaySettings()), lambda _: None)


def line(custom_id: str, length: int = 90, **body: Any) -> bytes:
    """length: tokens of its answer, where it has room for them."""
    body["messages"] = [{"role": "user", "content": "Hello"}]
    facts = {"metadata": {"reference_output_tokens": length}}
    return json.dumps({"custom_id": custom_id, "url": CHAT, "body": body} | facts).encode()


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    """Three that end by themselves or are of one token, two that are cut."""
    return write(
        tmp_path / "jobs.jsonl",
        line("whole", 5, max_tokens=50),
        line("cut-1", max_tokens=8),
        b"no json",
        line("label", max_tokens=1),
        line("cut-2", max_completion_tokens=9),
    )


def test_they_are_counted_and_named_and_stay_answers(jobs: Path, out: Path) -> None:
    summary = run(out, jobs)
    assert (summary.cut_short, summary.cut_short_ids) == (2, ("cut-1", "cut-2"))
    assert summary.cut_short_list == str(StateFolder(out).cut_short)
    listed = lines_of(StateFolder(out).cut_short)
    assert [(entry["custom_id"], entry["line"]) for entry in listed] == [("cut-1", 2), ("cut-2", 5)]
    assert len(lines_of(out)) == 4


@pytest.mark.parametrize(("fail", "code"), [(False, 0), (True, 3)])
def test_they_end_the_command_with_3_where_that_is_asked_for(
    jobs: Path, out: Path, tmp_path: Path, fail: bool, code: int
) -> None:
    whole = write(tmp_path / "whole.jsonl", *[each for each in jobs.read_bytes().splitlines() if each != b"no json"])
    assert run(out, whole, fail_on_length=fail).exit_code == code
    again = execute(settings(out, whole, fail_on_length=fail), lambda *_: no_engine(), lambda _: None)
    assert again.exit_code == code, "of a run that had finished before, too"


def test_lines_that_may_fail_are_no_answers_that_may_be_cut(jobs: Path, out: Path) -> None:
    summary = run(out, jobs, fail_on_length=True)
    accepting = {"inputs": [str(jobs)], "errors_ok": True}
    assert exit_code(summary, RunOptions.of(accepting)) == 0
    assert exit_code(summary, RunOptions.of(accepting | {"fail_on_length": True})) == 3


def test_a_later_run_without_any_has_no_list(jobs: Path, out: Path) -> None:
    run(out, jobs)
    write(jobs, line("whole", 5, max_tokens=50))
    assert run(out, jobs, accept_changes=True).cut_short == 0
    assert not StateFolder(out).cut_short.exists()


def test_their_requests_can_be_run_again_with_more_room(jobs: Path, out: Path, tmp_path: Path) -> None:
    run(out, jobs)
    again = tmp_path / "again.jsonl"
    done = blendrun("answers", out, "--cut-short", "--as-requests", "--max-tokens", "200", "-o", again)
    assert done.returncode == 0, done.stderr
    assert "2 requests" in done.stderr
    found = lines_of(again)
    assert [request["custom_id"] for request in found] == ["cut-1", "cut-2"]
    assert found[0]["body"]["max_tokens"] == 200
    assert found[1]["body"]["max_completion_tokens"] == 200 and "max_tokens" not in found[1]["body"]
    assert run(tmp_path / "again.answers.jsonl", again).cut_short == 0


def test_where_nothing_was_cut_no_job_is_written(out: Path, tmp_path: Path) -> None:
    run(out, write(tmp_path / "whole.jsonl", line("whole", 5, max_tokens=50)))
    done = blendrun("answers", out, "--cut-short", "--as-requests", "-o", tmp_path / "again.jsonl")
    assert done.returncode == 0 and "no answer was cut short" in done.stderr
    assert not (tmp_path / "again.jsonl").exists()


def test_only_they_are_printed(jobs: Path, out: Path) -> None:
    run(out, jobs)
    printed = blendrun("answers", out, "--cut-short").stdout
    assert "cut-1" in printed and "cut-2" in printed and "whole" not in printed


def test_an_input_that_has_changed_is_told_of(jobs: Path, out: Path) -> None:
    run(out, jobs)
    jobs.write_bytes(b"x" * 10 + jobs.read_bytes())
    with pytest.raises(InputMissingError, match="is not what the run read"):
        list(requests_again(StateFolder(out).cut_short))


@pytest.mark.parametrize("options", [("--as-requests",), ("--max-tokens", "5"), ("--cut-short", "--as-requests", "-f")])
def test_options_that_do_not_go_together(jobs: Path, out: Path, options: tuple[str, ...]) -> None:
    run(out, jobs)
    refused = blendrun("answers", out, *options)
    assert refused.returncode == 2, refused.stderr
