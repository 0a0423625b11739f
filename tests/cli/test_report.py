"""`blendrun report`, `plan --report`, metrics and trace of real commands."""

from __future__ import annotations

import json
import os
import re
from io import StringIO
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from blendrun.report.schemas.doctor import Check, Checkup
from blendrun.report.terminal.doctor import print_doctor
from tests.command import REPLAY, await_answers, blendrun, start, write_jobs

SLOW = ("--engine-arg", "slots=2", "--engine-arg", "real_time=20")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def test_a_run_its_page_and_two_side_by_side(tmp_path: Path, out: Path) -> None:
    jobs = write_jobs(tmp_path / "jobs.jsonl", 30)
    assert blendrun("run", jobs, "-o", out, *REPLAY, "--engine-arg", "fail_every=10").returncode == 3
    priced = blendrun("run", jobs, "-o", tmp_path / "other.jsonl", *REPLAY, "--price", "3600")
    assert priced.returncode == 0 and " at 3600 an hour, load included; " in priced.stderr
    page = tmp_path / "report.html"
    made = blendrun("report", out, tmp_path / "other.jsonl.blendrun", "-o", page)
    assert made.returncode == 0, made.stderr
    assert f"wrote {page}" in made.stderr and made.stdout == ""
    text = page.read_text()
    assert "<title>blendrun: Two runs of one job: out.jsonl, other.jsonl</title>" in text
    assert "27 answered, 3 failed" in text and "30 answered, none failed" in text
    assert "[replay] no model was run" in text and '<th scope="row">cost</th>' in text
    before = os.umask(0)
    os.umask(before)
    assert page.stat().st_mode & 0o777 == 0o666 & ~before
    again = blendrun("report", out, "--no-answers", "--price", "3600", "-o", page)
    assert "it replaced the file that was there" in again.stderr
    text = page.read_text()
    assert "[replay] no model was run" not in text and "per 1,000 answers" in text


def test_where_nothing_ran_it_says_so(tmp_path: Path) -> None:
    for words, code in (((tmp_path / "none.jsonl",), 66), ((), 2), (("--plan", tmp_path / "none.json"), 66)):
        refused = blendrun("report", *words, "-o", tmp_path / "report.html")
        assert refused.returncode == code
        assert not (tmp_path / "report.html").exists()


def test_metrics_are_served_while_it_runs_and_left_as_text(tmp_path: Path, out: Path) -> None:
    jobs, text = write_jobs(tmp_path / "jobs.jsonl", 40), tmp_path / "blendrun.prom"
    run = start(
        *("run", jobs, "-o", out, *REPLAY, *SLOW, "-v", "--drain-timeout", "0"),
        *("--metrics-port", "0", "--metrics-textfile", text),
    )
    await_answers(out.with_name("out.jsonl.blendrun") / "journal", 3, run)
    assert run.stderr is not None
    address = None
    while address is None:
        address = re.search(r"http://127\.0\.0\.1:\d+/metrics", run.stderr.readline())
    with urlopen(address.group()) as answer:
        families = {each.name: each for each in text_string_to_metric_families(answer.read().decode())}
    assert families["blendrun_lines"].samples[0].value == 40
    assert {sample.labels["phase"]: sample.value for sample in families["blendrun_phase"].samples}["run"] == 1
    run.terminate()
    run.communicate()
    left = {each.name: each for each in text_string_to_metric_families(text.read_text())}
    assert left["blendrun_exit_code"].samples[0].value == run.returncode == 75
    assert "blendrun_last_success_timestamp_seconds" not in left
    assert blendrun("run", jobs, "-o", out, *REPLAY, "--metrics-textfile", text).returncode == 0
    assert "blendrun_last_success_timestamp_seconds" in text.read_text()


def test_a_trace_is_left(tmp_path: Path, out: Path) -> None:
    jobs, trace = write_jobs(tmp_path / "jobs.jsonl", 5), tmp_path / "trace.json"
    assert blendrun("run", jobs, "-o", out, *REPLAY, "--trace", trace).returncode == 0
    names = [event["name"] for event in json.loads(trace.read_bytes())["traceEvents"]]
    assert {"index", "load", "run", "write"} <= set(names)


def test_what_cannot_be_served_or_written_is_refused_before_it_runs(tmp_path: Path, out: Path) -> None:
    jobs = write_jobs(tmp_path / "jobs.jsonl", 5)
    for words in (("--trace", tmp_path / "no" / "t.json"), ("--metrics-textfile", tmp_path / "no" / "x.prom")):
        refused = blendrun("run", jobs, "-o", out, *REPLAY, *words)
        assert refused.returncode == 73
        assert "Traceback" not in refused.stderr
        assert not out.exists()


def test_no_file_of_the_job_is_replaced(tmp_path: Path, out: Path) -> None:
    jobs = write_jobs(tmp_path / "jobs.jsonl", 5)
    assert blendrun("run", jobs, "-o", out, *REPLAY, "--trace", jobs).returncode == 2
    assert blendrun("run", jobs, "-o", out, *REPLAY, "--metrics-textfile", out).returncode == 2
    assert blendrun("run", jobs, "-o", out, *REPLAY).returncode == 0
    answers = out.read_bytes()
    assert blendrun("report", out, "-o", out).returncode == 2
    assert out.read_bytes() == answers
    here = blendrun("report", ".", "-o", tmp_path / "page.html", cwd=f"{out}.blendrun")
    assert here.returncode == 0, here.stderr


def test_failed_lines_that_are_fine_are_no_success(tmp_path: Path, out: Path) -> None:
    jobs, text = write_jobs(tmp_path / "jobs.jsonl", 20), tmp_path / "blendrun.prom"
    words = ("run", jobs, "-o", out, *REPLAY, "--engine-arg", "fail_every=10", "--errors-ok")
    assert blendrun(*words, "--metrics-textfile", text).returncode == 0
    assert "blendrun_exit_code 0" in text.read_text()
    assert "last_success" not in text.read_text()
    assert blendrun("run", jobs, "-o", out, "-m", "no-such-model", "--metrics-textfile", text).returncode == 2
    assert "blendrun_exit_code 2" in text.read_text()


def test_the_doctor_s_fixes_stand_once_each_on_a_line_that_can_be_copied() -> None:
    command = f"/a/long/path/bin/python -m pip install '{'folder/' * 30}[sglang]'"
    checks = (Check("sglang", "bad", "not installed", command), Check("torch", "bad", "not installed", command))
    shown = StringIO()
    print_doctor(Checkup(1, "9.9", False, True, checks), shown)
    lines = shown.getvalue().splitlines()
    assert lines[-5:-1] == ["To fix:", "sglang, torch:", f"  {command}", ""]


def test_the_doctor_says_what_can_run_and_starts_nothing(tmp_path: Path) -> None:
    found = blendrun("doctor", "--json", cwd=tmp_path)
    report = json.loads(found.stdout)
    assert found.returncode == (0 if report["can_run"] else 69)
    checks = {check["name"]: check for check in report["checks"]}
    assert {"Python", "sglang", "torch", "device", "--overlap mixed", "small model", "memory"} <= set(checks)
    assert all(check["state"] in ("ok", "missing", "bad") for check in report["checks"])
    assert all(check["fix"] for check in report["checks"] if check["state"] == "bad")
    text = blendrun("doctor", cwd=tmp_path).stdout
    assert all(name in text for name in checks)
