"""Bad lines of every kind, through the real command: each is an error line, and none costs another its answer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from scripts.fuzz.json_cases import ALL, MUST_REFUSE, MUST_TAKE
from scripts.fuzz.lines import job
from scripts.fuzz.reading import read
from tests import command
from tests.command import REPLAY

CODES = {"invalid_json", "invalid_request", "duplicate_custom_id", "context_length_exceeded", "schema_unsupported"}
CHAT = "/v1/chat/completions"
# What atheris found, or a look at what it led to: each of these once raised something else than it should.
FINDINGS: tuple[dict[str, Any], ...] = (
    {"messages": [{"role": "user", "content": [{"type": {"a": 1}}]}]},
    {"messages": [{"role": "user", "content": [{"type": ["text"]}]}]},
    {
        "messages": [{"role": "user", "content": "x"}],
        "tools": ["f", None],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
    },
    {"messages": [{"role": "wizard" * 10_000, "content": "x"}]},
    {"messages": [{"role": "user", "content": [{"type": "x" * 10_000}]}]},
)


def blendrun(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """In `folder`, with the replay engine."""
    return command.blendrun("run", *words, *REPLAY, cwd=folder)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return command.lines_of(path) if path.exists() else []


def chat(name: str, **body: Any) -> bytes:
    content = {"messages": [{"role": "user", "content": "Hello"}], **body}
    return orjson.dumps({"custom_id": name, "url": CHAT, "body": content})


def wanted_id(raw: bytes) -> Any:
    """The custom_id of a line, as any JSON parser reads it; None where it has none, or is no JSON."""
    try:
        line = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    name = line.get("custom_id") if isinstance(line, dict) else None
    return name if isinstance(name, str) else None


def check_accounts(folder: Path, content: bytes) -> None:
    """Every line that is not blank is in one of the two files, under its own id, in input order."""
    given = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    numbers = [number for number, raw in enumerate(given, 1) if raw and not raw.isspace()]
    answers, errors = lines_of(folder / "out"), lines_of(folder / "out.errors.jsonl")
    assert len(answers) + len(errors) == len(numbers)
    failed = [record["error"]["line"] for record in errors]
    assert failed == sorted(set(failed))
    for record in errors:
        assert record["error"]["code"] in CODES
        assert 0 < len(record["error"]["message"]) < 1000
        assert record["custom_id"] == wanted_id(given[record["error"]["line"] - 1])
    answered = sorted(set(numbers) - set(failed))
    assert [record["custom_id"] for record in answers] == [wanted_id(given[number - 1]) for number in answered]
    assert len({record["custom_id"] for record in answers}) == len(answers)


def test_ten_thousand_lines_of_a_grammar_are_all_accounted_for(tmp_path: Path) -> None:
    content = job(seed=1, count=10_000)
    (tmp_path / "jobs").write_bytes(content)
    # Most lines have some field that nobody reads.
    done = blendrun(tmp_path, "jobs", "-o", "out", "--unknown-fields", "warn")
    assert done.returncode == 3, done.stderr
    check_accounts(tmp_path, content)
    assert len(lines_of(tmp_path / "out")) > 1500, "most of the grammar is no longer tried behind the first check"
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) < 60, "one line a kind of error, not one a request"


def test_the_grammar_gives_the_same_lines_each_time() -> None:
    assert job(seed=5, count=300) == job(seed=5, count=300)
    assert job(seed=5, count=300) != job(seed=6, count=300)


@pytest.mark.parametrize("place", [b"%b", b'{"custom_id": "a", "url": "/v1/completions", "body": %b}'])
def test_corner_cases_of_json_as_a_line_and_as_a_body(tmp_path: Path, place: bytes) -> None:
    # The first line is meant to be a request: a file without any is refused whole.
    content = b"\n".join((b'{"custom_id": "x"}', *(place.replace(b"%b", case) for case in ALL)))
    (tmp_path / "jobs").write_bytes(content)
    done = blendrun(tmp_path, "jobs", "-o", "out", "-q")
    assert done.returncode == 3, done.stderr
    check_accounts(tmp_path, content)
    assert not lines_of(tmp_path / "out")


def test_what_json_allows_in_a_request_is_answered_and_what_it_forbids_is_not(tmp_path: Path) -> None:
    def line(name: bytes, case: bytes) -> bytes:
        body = b'{"messages": [{"role": "user", "content": "x"}], "user_data": ' + case + b"}"
        return b'{"custom_id": "' + name + b'", "url": "/v1/chat/completions", "body": ' + body + b"}"

    # Blank is not a value, but the object around it is refused for that too; the others are no JSON by themselves.
    good = [line(b"y%d" % number, case) for number, case in enumerate(MUST_TAKE)]
    bad = [line(b"n%d" % number, case) for number, case in enumerate(MUST_REFUSE)]
    (tmp_path / "jobs").write_bytes(b"\n".join([*good, *bad]))
    assert blendrun(tmp_path, "jobs", "-o", "out", "-q", "--unknown-fields", "warn").returncode == 3
    errors = lines_of(tmp_path / "out.errors.jsonl")
    assert [record["error"]["line"] for record in errors if record["error"]["code"] == "invalid_json"] == list(
        range(len(good) + 1, len(good) + len(bad) + 1)
    )
    assert len(errors) == len(bad), "`user_data` is passed over"


@pytest.mark.parametrize("body", FINDINGS, ids=range(len(FINDINGS)))
def test_findings_of_the_coverage_guided_fuzzer_stay_mended(body: dict[str, Any]) -> None:
    read(orjson.dumps({"custom_id": "a", "url": CHAT, "body": body}))


def test_the_reading_of_a_line_holds_on_lines_of_another_seed() -> None:
    for raw in job(seed=2, count=1500).split(b"\n"):
        read(raw)


def test_a_line_of_100_megabytes_is_an_error_line_and_is_not_held(tmp_path: Path) -> None:
    with (tmp_path / "jobs").open("wb") as file:
        file.write(chat("a") + b'\n{"custom_id": "big", "x": "')
        for _ in range(100):
            file.write(b"x" * 1_000_000)
        file.write(b'"}\n' + chat("b"))
    done = peak_of(tmp_path, "jobs", "-o", "out", "-q")
    assert done.returncode == 3, done.stderr
    assert [answer["custom_id"] for answer in lines_of(tmp_path / "out")] == ["a", "b"]
    (error,) = lines_of(tmp_path / "out.errors.jsonl")
    assert error["error"]["code"] == "invalid_request"
    assert "the line has 100,000,029 bytes; at most 67,108,864 are read" in error["error"]["message"]
    # The command itself takes about 75 MB.
    assert int(done.stdout.split()[-1]) < 100_000, "KB"


def peak_of(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command, with its peak memory in KB as the last word on stdout."""
    program = (
        "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(done.returncode)"
    )
    words = (sys.executable, "-c", program, command.COMMAND, "run", *words, *REPLAY)
    return subprocess.run(words, cwd=folder, capture_output=True, text=True)


def test_the_bound_of_a_line_can_be_set(tmp_path: Path) -> None:
    (tmp_path / "jobs").write_bytes(b"\n".join([chat("a"), chat("b", user="x" * 1000)]))
    assert blendrun(tmp_path, "jobs", "-o", "out", "--max-line-bytes", "500").returncode == 3
    assert "at most 500 are read" in lines_of(tmp_path / "out.errors.jsonl")[0]["error"]["message"]
    again = blendrun(tmp_path, "jobs", "-o", "out", "--max-line-bytes", "5000", "--accept-changes")
    assert again.returncode == 0, again.stderr
    assert len(lines_of(tmp_path / "out")) == 2


class TestStrict:
    def test_a_bad_line_ends_it_before_an_engine_and_all_bad_lines_are_listed(self, tmp_path: Path) -> None:
        (tmp_path / "jobs").write_bytes(b"\n".join([chat("a"), b"no", chat("b"), chat("a"), b"nor this"]))
        done = blendrun(tmp_path, "jobs", "-o", "out", "--strict")
        assert done.returncode == 65
        assert "3 of 5 lines cannot be answered, and --strict runs none then" in done.stderr
        assert 'warning="2x invalid_json, first at jobs:2: not JSON' in done.stderr
        assert "phase=load" not in done.stderr
        assert not (tmp_path / "out").exists()
        assert [record["error"]["line"] for record in lines_of(tmp_path / "out.errors.jsonl")] == [2, 4, 5]
        summary = orjson.loads((tmp_path / "out.blendrun" / "summary.json").read_bytes())
        assert (summary["exit_code"], summary["counts"]["failed"]) == (65, 3)
        assert [(kind["code"], kind["count"], kind["line"]) for kind in summary["failures"]] == [
            ("invalid_json", 2, 2),
            ("duplicate_custom_id", 1, 4),
        ]

    def test_mended_it_runs_and_the_list_goes(self, tmp_path: Path) -> None:
        (tmp_path / "jobs").write_bytes(b"\n".join([chat("a"), b"no"]))
        assert blendrun(tmp_path, "jobs", "-o", "out", "--strict").returncode == 65
        (tmp_path / "jobs").write_bytes(b"\n".join([chat("a"), chat("b")]))
        done = blendrun(tmp_path, "jobs", "-o", "out", "--strict")
        assert done.returncode == 0, done.stderr
        assert not (tmp_path / "out.errors.jsonl").exists()


class TestMaxErrors:
    @pytest.fixture
    def jobs(self, tmp_path: Path) -> Path:
        """40 requests, then 60 lines that are none."""
        rows = [chat(f"id {row}") for row in range(40)] + [b"garbage %d" % row for row in range(60)]
        (tmp_path / "jobs").write_bytes(b"\n".join(rows))
        return tmp_path

    @pytest.mark.parametrize(
        ("limit", "code"), [("59", 4), ("60", 3), ("59.9%", 4), ("60%", 3), ("0", 4), ("100%", 3), ("x", 2), ("-1", 2)]
    )
    def test_a_bad_file_stops_before_an_engine_is_loaded(self, jobs: Path, limit: str, code: int) -> None:
        done = blendrun(jobs, "jobs", "-o", "out", f"--max-errors={limit}")
        assert done.returncode == code, done.stderr
        assert ("phase=load" in done.stderr) == (code == 3)
        if code == 4:
            assert f"60 of 100 lines failed, more than --max-errors {limit} allows" in done.stderr
            assert len(lines_of(jobs / "out.errors.jsonl")) == 60
            assert not (jobs / "out").exists()

    def test_failures_of_the_engine_count_too_and_what_is_answered_is_kept(self, tmp_path: Path) -> None:
        (tmp_path / "jobs").write_bytes(b"\n".join(chat(f"id {row}") for row in range(2000)))
        words = ("jobs", "-o", "out", "--max-errors", "5", "--engine-arg", "slots=2")
        stopped = blendrun(tmp_path, *words, "--engine-arg", "fail_every=10")
        assert stopped.returncode == 4, stopped.stderr
        assert "more than --max-errors 5 allows" in stopped.stderr
        kept = orjson.loads((tmp_path / "out.blendrun" / "summary.json").read_bytes())["counts"]
        assert 50 <= kept["completed"] < 1000
        assert kept["failed"] >= 6
        again = blendrun(tmp_path, *words)
        assert again.returncode == 4, "the same limit is still passed"
        assert "phase=load" not in again.stderr
        resumed = blendrun(tmp_path, *words, "--retry-errors")
        assert resumed.returncode == 0, resumed.stderr
        assert f"resuming: {kept['completed']:,} of 2,000" in resumed.stderr
        assert len(lines_of(tmp_path / "out")) == 2000

    def test_errors_ok_is_about_the_lines_not_about_the_limit(self, jobs: Path) -> None:
        assert blendrun(jobs, "jobs", "-o", "out", "--max-errors", "59", "--errors-ok").returncode == 4
        assert blendrun(jobs, "jobs", "-o", "out", "--max-errors", "60", "--errors-ok").returncode == 0
