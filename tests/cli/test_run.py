"""`blendrun run` from outside: exit codes, inputs, outputs."""

from __future__ import annotations

import gzip
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import zstandard

from blendrun.version import __version__
from tests.command import REPLAY, blendrun, environment, ids, line, lines_of, write_jobs


def test_help_and_version() -> None:
    shown = blendrun("--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "Finish a file of LLM requests" in shown.stdout
    assert "--retry-errors" in blendrun("run", "--help").stdout
    assert blendrun("--version").stdout == f"blendrun {__version__}\n"


def test_the_command_line_loads_nothing_heavy() -> None:
    program = "import sys, blendrun.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded.isdisjoint({"torch", "sglang", "transformers", "numpy", "orjson", "msgspec", "yaml", "zstandard"})


def test_all_answered_is_0_and_finished_again_runs_nothing(tmp_path: Path) -> None:
    write_jobs(tmp_path / "jobs.jsonl", 30)
    done = blendrun("run", "jobs.jsonl", *REPLAY, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert ids(tmp_path / "jobs.answers.jsonl") == [f"id {row}" for row in range(30)]
    again = blendrun("run", "jobs.jsonl", *REPLAY, cwd=tmp_path)
    assert again.returncode == 0
    assert "finished before" in again.stderr
    assert "phase=run" not in again.stderr


def test_some_lines_failed_is_3_or_0_where_that_is_fine_and_retried_they_succeed(tmp_path: Path) -> None:
    jobs, out = write_jobs(tmp_path / "jobs.jsonl", 30), tmp_path / "out"
    failing = ("run", jobs, "-o", out, *REPLAY, "--engine-arg", "fail_every=10")
    assert blendrun(*failing).returncode == 3
    assert blendrun(*failing, "--errors-ok").returncode == 0
    assert [error["error"]["line"] for error in lines_of(tmp_path / "out.errors.jsonl")] == [10, 20, 30]
    assert blendrun("run", jobs, "-o", out, *REPLAY, "--retry-errors").returncode == 0
    assert len(ids(out)) == 30
    assert not (tmp_path / "out.errors.jsonl").exists()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("jobs.jsonl",), 2, "which model? Give --model"),
        (("-", *REPLAY), 2, "where do the answers go?"),
        (("jobs.jsonl", "jobs.jsonl", *REPLAY), 2, "jobs.jsonl is given twice"),
        (("jobs.jsonl", *REPLAY, "--engine-arg", "slots"), 2, "--engine-arg takes NAME=VALUE"),
        (("jobs.jsonl", *REPLAY, "--engine-arg", "lanes=3"), 2, "unknown field `lanes`"),
        (("jobs.jsonl", *REPLAY, "--endpoint", "/v1/x"), 2, "--endpoint /v1/x: known are /v1/chat/completions"),
        (("jobs.jsonl", *REPLAY, "-o", ""), 2, "--output is empty: give it a value"),
        (("jobs.jsonl", *REPLAY, "--limit", "0"), 2, "--limit"),
        ((*REPLAY,), 2, "JOBS"),
        (("empty", *REPLAY), 65, "empty holds no request"),
        (("missing", *REPLAY), 66, "cannot read missing: no such file"),
        (("folder", *REPLAY), 66, "folder is a folder; name the files in it"),
        (("jobs.jsonl", *REPLAY, "-o", "jobs.jsonl"), 73, "the output jobs.jsonl is the input"),
        (("jobs.jsonl", *REPLAY, "-o", "empty"), 73, "empty exists and no run state lies beside it"),
        (("jobs.jsonl", *REPLAY, "-o", "folder", "--overwrite"), 73, "folder is no regular file"),
        (("jobs.jsonl", *REPLAY, "-o", "empty/x"), 73, "Not a directory"),
        (("jobs.jsonl", *REPLAY, "-o", "/proc/x/y"), 73, "give an output in a folder that can be written"),
    ],
)
def test_what_cannot_be_run_is_said_in_one_sentence(
    tmp_path: Path, words: tuple[str, ...], code: int, message: str
) -> None:
    write_jobs(tmp_path / "jobs.jsonl", 2)
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    refused = blendrun("run", *words, cwd=tmp_path)
    assert refused.returncode == code
    assert message in " ".join(refused.stderr.replace("│", " ").split())
    assert refused.stdout == ""


def test_a_changed_input_is_78_and_the_way_on_is_named(tmp_path: Path) -> None:
    jobs = write_jobs(tmp_path / "jobs.jsonl", 5)
    command = ("run", jobs, "-o", tmp_path / "out", *REPLAY, "-q")
    assert blendrun(*command).returncode == 0
    write_jobs(jobs, 6)
    refused = blendrun(*command)
    assert refused.returncode == 78
    assert "what changed: the input" in refused.stderr
    assert "--accept-changes" in refused.stderr


def test_files_of_every_kind_are_one_job(tmp_path: Path) -> None:
    plain = tmp_path / "1 plain ü.jsonl"
    plain.write_bytes(b"\xef\xbb\xbf" + line("a") + b"\r\n\r\n" + line("b"))
    packed = tmp_path / "2.jsonl.gz"
    packed.write_bytes(gzip.compress(line("c") + b"\n"))
    frames = tmp_path / "3.zst"
    frames.write_bytes(zstandard.ZstdCompressor().compress(line("d") + b"\nno"))
    done = blendrun(
        "run", plain, packed, frames, "-", *REPLAY, "-o", "new/folder/out", cwd=tmp_path, input='{"custom_id": "x"}\n'
    )
    assert done.returncode == 3, done.stderr
    assert ids(tmp_path / "new/folder/out") == ["a", "b", "c", "d"]
    errors = lines_of(tmp_path / "new/folder/out.errors.jsonl")
    assert [(error["error"]["file"], error["error"]["line"]) for error in errors] == [(str(frames), 2), ("<stdin>", 1)]


def test_lines_without_url_take_the_endpoint_given(tmp_path: Path) -> None:
    (tmp_path / "jobs").write_text('{"custom_id": "a", "body": {"prompt": "x"}}\n')
    assert blendrun("run", "jobs", *REPLAY, "--endpoint", "/v1/completions", "-q", cwd=tmp_path).returncode == 0
    assert lines_of(tmp_path / "jobs.answers.jsonl")[0]["response"]["body"]["object"] == "text_completion"


def test_the_same_run_can_be_named_from_another_folder(tmp_path: Path) -> None:
    write_jobs(tmp_path / "jobs.jsonl", 3)
    (tmp_path / "deep").mkdir()
    assert blendrun("run", "jobs.jsonl", "-o", "out", *REPLAY, cwd=tmp_path).returncode == 0
    again = blendrun("run", "../jobs.jsonl", "-o", "../out", *REPLAY, cwd=tmp_path / "deep")
    assert again.returncode == 0
    assert "finished before" in again.stderr


def test_no_home_no_path_no_locale(tmp_path: Path) -> None:
    jobs = write_jobs(tmp_path / "jobs é.jsonl", 3)
    done = blendrun("run", jobs, "-o", tmp_path / "out", *REPLAY, process=True, env={}, cwd="/")
    assert done.returncode == 0, done.stderr
    assert len(ids(tmp_path / "out")) == 3


class TestStdout:
    @pytest.fixture
    def jobs(self, tmp_path: Path) -> Path:
        return write_jobs(tmp_path / "jobs.jsonl", 2000)

    def test_carries_the_answers_and_nothing_else(self, tmp_path: Path) -> None:
        source = b"\n".join(line(f"id {row}") for row in range(3))
        done = blendrun("run", "-", "-o", "-", *REPLAY, cwd=tmp_path, input=source, text=False)
        assert done.returncode == 0
        assert done.stdout == (tmp_path / "stdin.answers.jsonl").read_bytes()
        assert done.stdout.count(b"\n") == 3

    def test_of_stdin_to_a_file_stays_empty(self, tmp_path: Path) -> None:
        source = line("a").decode()
        done = blendrun("run", "-", "-o", "out", *REPLAY, cwd=tmp_path, input=source)
        assert (done.returncode, done.stdout) == (0, "")
        again = blendrun("run", "-", "-o", "out", *REPLAY, cwd=tmp_path, input=source)
        assert "finished before" in again.stderr, "stdin is known by what came from it"

    def test_a_reader_that_has_seen_enough_is_no_error(self, jobs: Path) -> None:
        pipeline = (
            f'"{sys.executable.removesuffix("python")}blendrun" run {jobs.name} -o - --engine replay -q | head -1'
        )
        done = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {pipeline}"], capture_output=True, cwd=jobs.parent, check=False
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.count(b"\n") == 1

    def test_a_full_disk_behind_it_is_73_and_the_answers_are_kept(self, jobs: Path) -> None:
        with Path("/dev/full").open("wb") as full:
            done = blendrun(
                "run",
                jobs,
                "-o",
                "-",
                *REPLAY,
                process=True,
                cwd=jobs.parent,
                capture_output=False,
                stdout=full,
                stderr=subprocess.PIPE,
            )
        assert done.returncode == 73
        assert "cannot write to stdout: No space left on device; the answers are in jobs.answers.jsonl" in done.stderr
        assert len(ids(jobs.with_name("jobs.answers.jsonl"))) == 2000

    def test_closed_it_is_refused_before_any_work(self, jobs: Path) -> None:
        done = blendrun("run", jobs, "-o", "-", *REPLAY, process=True, cwd=jobs.parent, preexec_fn=lambda: os.close(1))
        assert done.returncode == 73
        assert "stdout is closed; give a file with -o" in done.stderr
        assert list(jobs.parent.iterdir()) == [jobs]


class TestStderr:
    @pytest.fixture
    def jobs(self, tmp_path: Path) -> Path:
        return write_jobs(tmp_path / "jobs.jsonl", 50)

    def test_names_each_phase_from_the_first_line_without_a_carriage_return(self, jobs: Path) -> None:
        bad = jobs.with_name("a\rb\n.jsonl")
        jobs.rename(bad)
        done = blendrun("run", bad, "-o", jobs.with_name("out"), *REPLAY, text=False)
        lines = done.stderr.decode().split("\n")
        assert b"\r" not in done.stderr and b"\x1b" not in done.stderr
        named = [text.partition("phase=")[2].split(" ")[0] for text in lines if "phase=" in text]
        assert named == ["model", "index", "load", "run", "write"]
        assert re.match(r"blendrun \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d t=0\.0s phase=model", lines[0])
        assert "phase=index detail=" in done.stderr.decode() and '\\rb\\n.jsonl"' in done.stderr.decode()

    def test_quiet_it_is_empty_on_success_and_when_there_is_nothing_to_do(self, jobs: Path) -> None:
        command = ("run", jobs, "-o", jobs.with_name("out"), *REPLAY, "-q")
        for _ in range(2):
            done = blendrun(*command)
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def test_quiet_it_still_says_why_a_command_ended(self, jobs: Path) -> None:
        done = blendrun("run", jobs.with_name("no"), *REPLAY, "-q")
        assert (done.returncode, done.stderr.count("\n")) == (66, 1)

    def test_forced_colours_put_no_bar_into_a_log(self, jobs: Path) -> None:
        done = blendrun("run", jobs, "-o", jobs.with_name("out"), *REPLAY, env=environment(FORCE_COLOR="1"))
        assert "\r" not in done.stderr and "\x1b[?25l" not in done.stderr
        assert "phase=run" in done.stderr

    def test_the_summary_of_a_log_keeps_a_long_path_in_one_piece(self, jobs: Path) -> None:
        out = jobs.with_name("x" * 200)
        assert f"  {out}" in blendrun("run", jobs, "-o", out, *REPLAY).stderr

    @pytest.mark.parametrize("closed", [(2,), (0, 1, 2)])
    def test_closed_it_costs_nothing_and_stdout_stays_clean(self, jobs: Path, closed: tuple[int, ...]) -> None:
        done = blendrun(
            "run", jobs, "-o", jobs.with_name("out"), *REPLAY, process=True, preexec_fn=lambda: [*map(os.close, closed)]
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert len(ids(jobs.with_name("out"))) == 50
        assert (jobs.parent / "out.blendrun" / "journal").read_bytes().count(b"\n") == 51

    def test_a_log_that_nobody_reads_or_that_is_full_costs_nothing(self, jobs: Path) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        command: dict[str, Any] = {"process": True, "capture_output": False}
        done = blendrun("run", jobs, "-o", jobs.with_name("1"), *REPLAY, **command, stderr=writer)
        os.close(writer)
        assert done.returncode == 0
        with Path("/dev/full").open("wb") as full:
            done = blendrun("run", jobs, "-o", jobs.with_name("2"), *REPLAY, **command, stderr=full)
        assert done.returncode == 0
        assert len(ids(jobs.with_name("1"))) == len(ids(jobs.with_name("2"))) == 50
