"""Commands beside `run` replace nothing that they did not make: no device, no pipe, no file of somebody else."""

from __future__ import annotations

import fcntl
import os
import stat
import threading
from pathlib import Path

import pytest

from blendrun.bench.keep import kept_folder
from blendrun.calibrate.card import check_writable
from blendrun.errors import OutputUnavailableError, UsageError
from blendrun.files import PRIVATE, probe, replacing
from blendrun.store.guard import Target
from tests.command import REPLAY, blendrun, lines_of, write_jobs
from tests.faults.batch import refusal

SYNTH = ("synth", "-q", "-m", "llama-3-8b", "--hardware", "h200", "--requests", "8000", "--sharing", "0.2")
PRECIOUS = b"precious\n"


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


def test_what_is_no_file_is_never_replaced(pipe: Path) -> None:
    with pytest.raises(OSError, match="no regular file"), replacing(pipe, PRIVATE) as file:
        file.write(PRECIOUS)
    with pytest.raises(OSError, match="no regular file"):
        probe(pipe)
    assert stat.S_ISFIFO(pipe.lstat().st_mode)


def test_a_workload_goes_through_a_pipe(pipe: Path) -> None:
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    assert blendrun(*SYNTH, "-o", pipe).returncode == 0
    reader.join()
    assert read[0].count(b"\n") == 8000
    assert stat.S_ISFIFO(pipe.lstat().st_mode)


@pytest.mark.parametrize(
    "words", [(*SYNTH, "-o", "-"), ("plan", "-q", "jobs.jsonl", "-m", "llama-3-8b", "--save", "-")]
)
def test_a_dash_makes_no_file_of_that_name(tmp_path: Path, words: tuple[str, ...]) -> None:
    write_jobs(tmp_path / "jobs.jsonl", 2)
    done = blendrun(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert "names no file; give /dev/stdout for the standard output" in refusal(done)
    assert not (tmp_path / "-").exists()


def test_a_plan_has_each_of_its_files_for_itself(tmp_path: Path) -> None:
    jobs = write_jobs(tmp_path / "jobs.jsonl", 2)
    (tmp_path / "sub").mkdir()
    same = ("--save", tmp_path / "x", "--report", tmp_path / "sub" / ".." / "x")
    done = blendrun("plan", "-q", jobs, "-m", "llama-3-8b", *same)
    assert (done.returncode, "--save and --report are one file" in refusal(done)) == (2, True)


def test_a_plan_leaves_out_what_a_run_answered(tmp_path: Path) -> None:
    traced = tmp_path / "trace.jsonl"
    traced.write_text('{"prompt_tokens": 10, "output_tokens": 5}\n' * 3)
    jobs = write_jobs(tmp_path / "jobs.jsonl", 2)
    assert blendrun("run", "-q", jobs, "-o", tmp_path / "a.jsonl", *REPLAY).returncode == 0
    plan = ("plan", "-q", "-m", "llama-3-8b", "--hardware", "h200", "--json")
    done = blendrun(*plan, traced, tmp_path / "a.jsonl")
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path / 'a.jsonl'} is left out: it holds what a run answered" in done.stderr
    assert blendrun(*plan, tmp_path / "a.jsonl").returncode == 65


def test_a_card_is_no_pipe_before_anything_is_measured(pipe: Path) -> None:
    with pytest.raises(OutputUnavailableError, match="no regular file"):
        check_writable(pipe)


def test_what_a_kill_has_left_beside_goes_and_nothing_else(tmp_path: Path) -> None:
    left, worked_on, young, link, other = names = [tmp_path / f".blendrun-{number:032x}.tmp" for number in range(5)]
    for name in names[:3]:
        name.write_bytes(PRECIOUS)
    link.symlink_to(left)
    other.mkdir()
    named_alike = tmp_path / ".blendrun-1.tmp"
    named_alike.write_bytes(PRECIOUS)
    for name in (left, worked_on, named_alike):
        os.utime(name, (1e9, 1e9))
    with worked_on.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        Target(tmp_path / "new", "-o").write(b"x")
    assert {path.name for path in tmp_path.iterdir()} == {
        "new", worked_on.name, young.name, link.name, other.name, named_alike.name
    }  # fmt: skip


class TestKeptFolder:
    """Of `bench live --keep`."""

    def test_it_is_made_and_files_of_others_stay(self, tmp_path: Path) -> None:
        folder = tmp_path / "new" / "runs"
        assert kept_folder(folder, (), overwrite=False) == folder
        (folder / "notes.txt").write_bytes(PRECIOUS)
        (folder / "live.json").write_bytes(PRECIOUS)
        kept_folder(folder, (), overwrite=True)
        assert {path.name for path in folder.iterdir()} == {"notes.txt", "live.json"}

    @pytest.mark.parametrize("name", ["blended-exclusive.log", "given-mixed-2.records.jsonl", "exclusive.estimates"])
    def test_nothing_is_added_to_what_is_there(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).symlink_to("elsewhere")
        (tmp_path / "elsewhere").write_bytes(PRECIOUS)
        with pytest.raises(OutputUnavailableError, match="files of a bench before"):
            kept_folder(tmp_path, (), overwrite=False)
        kept_folder(tmp_path, (), overwrite=True)
        assert {path.name for path in tmp_path.iterdir()} == {"elsewhere"}
        assert (tmp_path / "elsewhere").read_bytes() == PRECIOUS

    def test_no_input_and_no_state_of_a_run(self, tmp_path: Path) -> None:
        jobs = write_jobs(tmp_path / "given-exclusive-0.records.jsonl", 2)
        with pytest.raises(UsageError, match="which is read"):
            kept_folder(tmp_path, (jobs,), overwrite=True)
        assert len(lines_of(jobs)) == 2
        assert blendrun("run", "-q", jobs, "-o", tmp_path / "a.jsonl", *REPLAY).returncode == 0
        with pytest.raises(UsageError, match="in the state folder of a run"):
            kept_folder(tmp_path / "a.jsonl.blendrun", (), overwrite=True)

    def test_a_file_is_no_folder(self, tmp_path: Path) -> None:
        (tmp_path / "runs").write_bytes(PRECIOUS)
        with pytest.raises(OutputUnavailableError, match="File exists"):
            kept_folder(tmp_path / "runs", (), overwrite=False)
