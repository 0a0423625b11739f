"""Stopped by a signal, killed at any moment: the same command again finishes, and no line is lost or answered twice."""

from __future__ import annotations

import json
import random
import signal
import subprocess
from pathlib import Path

import pytest

from tests.command import REPLAY, await_answers, blendrun, ids, lines_of, start, write_jobs

# About 20 answers a second, with few in flight, so that there is time to stop it.
SLOW = ("--engine-arg", "slots=2", "--engine-arg", "decode_rate=10", "--engine-arg", "real_time=100")
STATED = {"metadata": {"reference_output_tokens": 100}}


def summary(output: Path) -> dict[str, object]:
    found = json.loads((output.parent / f"{output.name}.blendrun" / "summary.json").read_bytes())
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        (signal.SIGTERM, 75, "stopped by SIGTERM"),
        (signal.SIGUSR1, 75, "stopped by SIGUSR1"),
        (signal.SIGINT, 130, "interrupted"),
    ],
)
def test_one_signal_drains_and_the_same_command_finishes(tmp_path: Path, number: int, code: int, words: str) -> None:
    jobs, out = write_jobs(tmp_path / "jobs.jsonl", 400, **STATED), tmp_path / "out.jsonl"
    command = ("run", jobs, "-o", out, *REPLAY, "--drain-timeout", "0.2")
    process = start(*command, *SLOW)
    await_answers(tmp_path / "out.jsonl.blendrun" / "journal", 5, process)
    process.send_signal(number)
    _, stderr = process.communicate()
    assert process.returncode == code, stderr
    last = stderr.splitlines()[-1]
    assert last.startswith(f"blendrun: {words}; ")
    assert " requests are left; the same command resumes; the " in last
    assert not out.exists()
    assert summary(out)["exit_code"] == code
    journal = (tmp_path / "out.jsonl.blendrun" / "journal").read_bytes()
    again = blendrun(*command)
    assert again.returncode == 0, again.stderr
    assert "resuming: " in again.stderr
    assert (tmp_path / "out.jsonl.blendrun" / "journal").read_bytes().startswith(journal)
    assert ids(out) == [f"id {row}" for row in range(400)]


def test_a_second_signal_does_not_wait_for_the_drain(tmp_path: Path) -> None:
    jobs, out = write_jobs(tmp_path / "jobs.jsonl", 400, **STATED), tmp_path / "out.jsonl"
    process = start("run", jobs, "-o", out, *REPLAY, *SLOW, "--drain-timeout", "3600")
    assert process.stderr is not None
    await_answers(tmp_path / "out.jsonl.blendrun" / "journal", 3, process)
    process.send_signal(signal.SIGTERM)
    for text in process.stderr:
        if "stopping (SIGTERM)" in text:
            break
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 75, "the first signal gives the code"
    assert blendrun("run", jobs, "-o", out, *REPLAY).returncode == 0


@pytest.mark.slow
def test_killed_at_random_moments_every_line_is_answered_once_and_no_answer_changes(tmp_path: Path) -> None:
    jobs, out = write_jobs(tmp_path / "jobs.jsonl", 3000), tmp_path / "out.jsonl"
    with jobs.open("ab") as file:
        file.write(b"not a request\n")
    command = ("run", jobs, "-o", out, *REPLAY, "--engine-arg", "slots=4")
    journal = tmp_path / "out.jsonl.blendrun" / "journal"
    chance, kept, kills = random.Random(5), b"", 0
    while kills < 10:
        process = start(*command, "--engine-arg", "real_time=3000", stderr=subprocess.DEVNULL)
        await_answers(journal, kept.count(b"\n") + chance.randint(-1, 200), process)
        process.kill()
        assert process.wait() == -signal.SIGKILL, "too fast for this test: slow the engine down"
        kills += 1
        content = journal.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        assert whole.startswith(kept), "what was answered stays as it is"
        assert not out.exists()
        kept = whole
    last = blendrun(*command)
    assert last.returncode == 3, last.stderr
    content = journal.read_bytes()
    assert content.startswith(kept)
    assert content.count(b"\n") == 3001, "no request ran twice"
    journalled = {answer["custom_id"]: answer for answer in _answers(content)}
    assert lines_of(out) == [journalled[f"id {row}"] for row in range(3000)]
    assert len(lines_of(tmp_path / "out.jsonl.errors.jsonl")) == 1
    uninterrupted = tmp_path / "uninterrupted"
    blendrun("run", jobs, "-o", uninterrupted, *REPLAY, "-q")
    assert uninterrupted.read_bytes() == out.read_bytes()


def _answers(journal: bytes) -> list[dict[str, object]]:
    return [json.loads(text.partition(b"\t")[2]) for text in journal.splitlines()[1:]]


def test_a_second_run_on_the_same_output_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    jobs, out = write_jobs(tmp_path / "jobs.jsonl", 400, **STATED), tmp_path / "out.jsonl"
    first = start("run", jobs, "-o", out, *REPLAY, *SLOW, "--drain-timeout", "0", stderr=subprocess.DEVNULL)
    await_answers(tmp_path / "out.jsonl.blendrun" / "journal", 1, first)
    second = blendrun("run", jobs, "-o", out, *REPLAY)
    assert second.returncode == 73
    assert second.stderr.splitlines()[-1].startswith(f"blendrun: another run is writing {out} ")
    first.kill()
    first.wait()
    assert blendrun("run", jobs, "-o", out, *REPLAY).returncode == 0, "a dead run holds no lock"
