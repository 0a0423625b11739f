"""Files and folders that options name: none is two things, and a cache of answers closes no folder of anything else."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tests.command import REPLAY, blendrun, lines_of, write_jobs


def refused(folder: Path, *words: str, code: int) -> str:
    write_jobs(folder / "in.jsonl", 3, temperature=0)
    before = sorted(folder.rglob("*"))
    done = blendrun("run", "in.jsonl", "-o", "a.jsonl", *words, *REPLAY, cwd=folder)
    assert done.returncode == code, done.stderr
    assert sorted(folder.rglob("*")) == before
    return str(done.stderr)


@pytest.mark.parametrize("option", ["--cache", "--partial"])
def test_no_name_is_no_folder(tmp_path: Path, option: str) -> None:
    assert f"{option} is empty" in refused(tmp_path, option, "", code=2)


@pytest.mark.parametrize("cache", [".", "mine"])
def test_a_folder_with_other_files_stays_as_open_as_it_was(tmp_path: Path, cache: str) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("x")
    for folder in (tmp_path, tmp_path / "mine"):
        folder.chmod(0o755)
    said = refused(tmp_path, "--cache", cache, code=73)
    assert "holds other files" in said
    assert {stat.S_IMODE(each.stat().st_mode) for each in (tmp_path, tmp_path / "mine")} == {0o755}


def test_new_empty_and_own_folders_are_taken(tmp_path: Path) -> None:
    write_jobs(tmp_path / "in.jsonl", 3)
    (tmp_path / "empty").mkdir(mode=0o755)
    for cache in ("empty", "new", "empty"):
        done = blendrun("run", "in.jsonl", "--no-resume", "--cache", cache, *REPLAY, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert stat.S_IMODE((tmp_path / cache).stat().st_mode) == 0o700
        # As if answers had been kept.
        (tmp_path / cache / "answers.sqlite3").touch()


@pytest.mark.parametrize("cache", ["a.jsonl.blendrun", "b.jsonl.blendrun", "b.jsonl.blendrun/sub"])
def test_the_state_of_a_run_is_no_cache(tmp_path: Path, cache: str) -> None:
    write_jobs(tmp_path / "in.jsonl", 3)
    assert blendrun("run", "in.jsonl", "-o", "b.jsonl", *REPLAY, cwd=tmp_path).returncode == 0
    assert "is in the state folder of a run" in refused(tmp_path, "--cache", cache, code=73)


@pytest.mark.parametrize("option", ["--trace", "--metrics-textfile"])
@pytest.mark.parametrize("there", [False, True])
def test_the_answers_so_far_are_in_no_file_of_another_option(tmp_path: Path, option: str, there: bool) -> None:
    if there:
        (tmp_path / "x").touch()
    said = refused(tmp_path, option, "x", "--partial", "./x", code=2)
    assert "are one file, x" in said


@pytest.mark.parametrize("option", ["--trace", "--metrics-textfile", "--partial"])
def test_nothing_is_written_into_a_cache(tmp_path: Path, option: str) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "answers.sqlite3").touch()
    said = refused(tmp_path, option, "kept/answers.sqlite3", "--cache", "kept", "--overwrite", code=2)
    assert "is in the folder of --cache" in said


def test_each_shard_has_answers_so_far_of_its_own(tmp_path: Path) -> None:
    write_jobs(tmp_path / "in.jsonl", 8)
    for shard in ("1/2", "2/2"):
        words = ("--shard", shard, "--partial", "p.jsonl", "-o", "a.jsonl")
        assert blendrun("run", "in.jsonl", *words, *REPLAY, cwd=tmp_path).returncode == 0
    for number in (1, 2):
        rows = [lines_of(tmp_path / f"{name}.{number}-of-2.jsonl") for name in ("a", "p")]
        assert rows[0] == sorted(rows[1], key=lambda answer: int(answer["custom_id"].split()[1]))
    assert not (tmp_path / "p.jsonl").exists()


def test_a_size_without_a_cache_is_refused(tmp_path: Path) -> None:
    assert "--cache-size bounds a cache" in refused(tmp_path, "--cache-size", "5G", code=2)
