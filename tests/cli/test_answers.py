"""`blendrun answers`: what a run has so far, whole lines only, each once, whatever becomes of the run."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from blendrun.endpoints.base import Usage
from blendrun.store.journal import Journal, Record
from blendrun.store.journal_tail import JournalTail
from tests.command import REPLAY, await_answers, blendrun, lines_of, start, write_jobs

SLOW = ("--engine-arg", "slots=4", "--engine-arg", "decode_rate=10", "--engine-arg", "real_time=400")
STATED = {"metadata": {"reference_output_tokens": 100}}


def record(number: int, *, ok: bool = True) -> Record:
    text = b'{"id":"batch_req_%d","error":%s}' % (number, b"null" if ok else b'{"code":"x","message":"y"}')
    return Record(number.to_bytes(16, "big"), ok, Usage(), (), None if ok else "x", text)


def written(path: Path, numbers: range, *, failed: range = range(0)) -> list[bytes]:
    with Journal(path) as journal:
        for number in numbers:
            journal.append(record(number, ok=number not in failed))
    return [record(number, ok=number not in failed).answer for number in numbers]


class TestJournalTail:
    def test_each_answer_comes_once_and_a_torn_one_when_it_is_whole(self, tmp_path: Path) -> None:
        path = tmp_path / "journal"
        tail = JournalTail(path)
        assert list(tail.new()) == []
        first = written(path, range(3))
        assert list(tail.new()) == first
        assert list(tail.new()) == []
        written(path, range(3, 4))
        data = path.read_bytes()
        path.write_bytes(data[:-5])
        assert list(tail.new()) == []
        path.write_bytes(data)
        assert list(tail.new()) == [record(3).answer]

    def test_what_a_kill_left_half_is_cut_and_the_next_answer_is_not_lost(self, tmp_path: Path) -> None:
        path = tmp_path / "journal"
        written(path, range(4))
        tail = JournalTail(path)
        assert len(list(tail.new())) == 4
        with path.open("ab") as file:
            file.write(b"0123abcd {half of a rec")
        assert list(tail.new()) == []
        # The resumed run cuts the tail off and goes on, further than the tail had come.
        more = written(path, range(4, 9))
        assert list(tail.new()) == more

    def test_retried_errors_are_dropped_from_the_journal_and_nothing_comes_twice(self, tmp_path: Path) -> None:
        path = tmp_path / "journal"
        lines = written(path, range(6), failed=range(1, 3))
        assert list(JournalTail(path, errors=True).new()) == lines
        tail = JournalTail(path)
        assert list(tail.new()) == [lines[0], *lines[3:]]
        with Journal(path) as journal:
            journal.drop_errors()
            journal.append(record(1))
        assert list(tail.new()) == [record(1).answer]

    def test_the_journal_of_a_new_run_is_read_from_its_beginning(self, tmp_path: Path) -> None:
        path = tmp_path / "journal"
        written(path, range(5))
        tail = JournalTail(path)
        assert len(list(tail.new())) == 5
        path.unlink()
        assert list(tail.new()) == []
        other = written(path, range(100, 103))
        assert list(tail.new()) == other

    def test_damage_costs_the_damaged_line(self, tmp_path: Path) -> None:
        path = tmp_path / "journal"
        lines = written(path, range(3))
        path.write_bytes(path.read_bytes().replace(lines[1], lines[1].replace(b"batch", b"botch")))
        assert list(JournalTail(path).new()) == [lines[0], lines[2]]


def test_followed_over_a_kill_the_answers_are_those_of_the_output(tmp_path: Path) -> None:
    jobs, out = write_jobs(tmp_path / "jobs.jsonl", 200, **STATED), tmp_path / "out.jsonl"
    command = ("run", jobs, "-o", out, *REPLAY)
    process = start(*command, *SLOW)
    await_answers(tmp_path / "out.jsonl.blendrun" / "journal", 5, process)
    follower = start("answers", out, "--follow", stdout=subprocess.PIPE)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert blendrun(*command).returncode == 0
    shown, stderr = follower.communicate(timeout=60)
    assert follower.returncode == 0, stderr
    assert sorted(shown.splitlines()) == sorted(out.read_text().splitlines())
    assert len(set(shown.splitlines())) == 200


def test_a_stopped_run_can_be_read_and_followed_says_that_it_is_stopped(tmp_path: Path) -> None:
    jobs, out = write_jobs(tmp_path / "jobs.jsonl", 200, **STATED), tmp_path / "out.jsonl"
    process = start("run", jobs, "-o", out, *REPLAY, *SLOW, "--drain-timeout", "0.2")
    await_answers(tmp_path / "out.jsonl.blendrun" / "journal", 5, process)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert not out.exists()
    followed = blendrun("answers", f"{out}.blendrun", "--follow", "-o", tmp_path / "some.jsonl")
    assert followed.returncode == 75, followed.stderr
    assert 5 <= len(lines_of(tmp_path / "some.jsonl")) < 200
    assert blendrun("answers", out).stdout == (tmp_path / "some.jsonl").read_text()


@pytest.mark.parametrize("name", ["out.jsonl", "jobs.jsonl", "out.jsonl.blendrun/journal"])
def test_no_file_of_the_run_or_of_others_is_written_over(tmp_path: Path, name: str) -> None:
    write_jobs(tmp_path / "jobs.jsonl", 3)
    assert blendrun("run", "jobs.jsonl", "-o", "out.jsonl", *REPLAY, cwd=tmp_path).returncode == 0
    before = (tmp_path / name).read_bytes()
    for words in ((), ("--follow",)):
        assert blendrun("answers", "out.jsonl", "-o", name, *words, cwd=tmp_path).returncode in (2, 73)
    assert (tmp_path / name).read_bytes() == before


def test_no_run_is_said(tmp_path: Path) -> None:
    missing = blendrun("answers", "none.jsonl", cwd=tmp_path)
    assert missing.returncode == 66
    assert "give the output file of a run" in missing.stderr


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.jsonl.gz", "t.xlsx"])
def test_a_name_that_promises_another_format_is_refused(tmp_path: Path, name: str) -> None:
    write_jobs(tmp_path / "jobs.jsonl", 2)
    assert blendrun("run", "jobs.jsonl", "-o", "out.jsonl", *REPLAY, cwd=tmp_path).returncode == 0
    done = blendrun("answers", "out.jsonl", "-o", name, cwd=tmp_path)
    assert done.returncode == 2
    assert f"-o {name}: " in done.stderr
    assert not (tmp_path / name).exists()
