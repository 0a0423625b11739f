"""Files that others read while they grow (`answers --follow -o`, `--partial`): no link leads them to another file."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from blendrun import files
from blendrun.endpoints.base import Usage
from blendrun.errors import OutputUnavailableError
from blendrun.events import ignore
from blendrun.runner.partial import PartialAnswers
from blendrun.store import partial
from blendrun.store.folder import StateFolder
from blendrun.store.guard import Target
from blendrun.store.journal import Journal, Record
from blendrun.store.partial import PartialFile, partial_target
from tests.command import REPLAY, blendrun, ids, write_jobs

PRECIOUS = b"precious\n"
ANSWER = b'{"id":"x","error":null}'


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "victim"
    path.write_bytes(PRECIOUS)
    return path


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder that others may write to."""
    path = tmp_path / "shared"
    path.mkdir()
    path.chmod(0o1777)
    return path


class TestGrowing:
    def test_a_link_that_is_planted_behind_the_check_is_not_followed(self, shared: Path, victim: Path) -> None:
        target = Target(shared / "a.jsonl", "--output")
        target.check()
        target.path.symlink_to(victim)
        with pytest.raises(OSError, match="it is a link, which others may have put there"):
            target.growing()
        assert victim.read_bytes() == PRECIOUS

    def test_one_that_is_planted_still_later_is_not_either(
        self, shared: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from blendrun.store import guard

        def then_planted(path: Path) -> Path:
            path.symlink_to(victim)
            return path

        monkeypatch.setattr(guard, "written_through", then_planted)
        with pytest.raises(OSError, match="symbolic links"):
            Target(shared / "a.jsonl", "--output").growing()
        assert victim.read_bytes() == PRECIOUS

    def test_a_link_of_the_users_own_is_followed(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to("there")
        with Target(tmp_path / "link", "--output").growing() as file:
            file.write(b"x")
        assert (tmp_path / "there").read_bytes() == b"x"
        assert (tmp_path / "link").is_symlink()

    def test_a_device_stays_one(self) -> None:
        with Target(Path("/dev/null"), "--output").growing() as file:
            file.write(b"x")


class TestAnswers:
    def test_no_input_is_replaced_by_any_name(self, tmp_path: Path) -> None:
        jobs = write_jobs(tmp_path / "jobs.jsonl", 3)
        assert blendrun("run", "jobs.jsonl", "-o", "out.jsonl", *REPLAY, cwd=tmp_path).returncode == 0
        before = jobs.read_bytes()
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "link.jsonl").symlink_to("jobs.jsonl")
        os.link(jobs, tmp_path / "hard.jsonl")
        for name, words in (("jobs.jsonl", ()), ("link.jsonl", ("--follow",)), ("hard.jsonl", ("--follow",))):
            done = blendrun(
                "answers", "../out.jsonl", "-o", f"../{name}", "--overwrite", *words, cwd=tmp_path / "elsewhere"
            )
            assert done.returncode == 2, done.stderr
            assert f"is a file of the job itself ({jobs})" in done.stderr.replace("\n", " ")
            assert jobs.read_bytes() == before
        (tmp_path / "old.jsonl").write_bytes(b"old\n" * 1000)
        done = blendrun("answers", "out.jsonl", "-o", "old.jsonl", "--overwrite", "--follow", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert sorted(ids(tmp_path / "old.jsonl")) == sorted(ids(tmp_path / "out.jsonl"))


def swapped(path: Path, victim: Path, how: str) -> None:
    path.unlink()
    if how == "link":
        path.symlink_to(victim)
    elif how == "hard link":
        os.link(victim, path)
    else:
        path.mkdir()


class TestPartial:
    def begun(self, folder: Path) -> tuple[Target, StateFolder]:
        state = StateFolder(folder / "out.jsonl")
        state.path.mkdir(mode=0o700)
        with Journal(state.journal) as journal:
            journal.append(Record(bytes(16), True, Usage(), (), None, ANSWER))
        return partial_target(folder / "partial.jsonl", state, (), overwrite=False), state

    @pytest.mark.parametrize("how", ["link", "hard link", "folder"])
    def test_what_is_put_in_its_place_before_it_grows_is_not_written_to(
        self, tmp_path: Path, victim: Path, how: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        target, state = self.begun(tmp_path)
        real: Callable[..., Any] = files.replacing

        @contextmanager
        def replaced(path: Path, *words: Any) -> Iterator[Any]:
            with real(path, *words) as file:
                yield file
            swapped(path, victim, how)

        monkeypatch.setattr(partial, "replacing", replaced)
        before = len(list(Path("/proc/self/fd").iterdir()))
        with pytest.raises(OSError, match=r"somebody else replaces files|symbolic links|directory"):
            PartialFile(target, state)
        assert victim.read_bytes() == PRECIOUS
        assert len(list(Path("/proc/self/fd").iterdir())) == before

    @pytest.mark.parametrize("how", ["link", "hard link"])
    def test_what_is_put_in_its_place_as_it_grows_is_not_written_to(
        self, tmp_path: Path, victim: Path, how: str
    ) -> None:
        target, state = self.begun(tmp_path)
        file = PartialFile(target, state)
        assert target.path.read_bytes() == ANSWER + b"\n"
        with Journal(state.journal) as journal:
            journal.append(Record(b"1" * 16, True, Usage(), (), None, ANSWER))
        swapped(target.path, victim, how)
        assert file.grow(last=True) is None
        assert victim.read_bytes() == PRECIOUS
        # Nor does the next run: through a link it is another's file, and a name of two files is given to a new one.
        again = partial_target(tmp_path / "partial.jsonl", state, (), overwrite=False)
        if how == "link":
            with pytest.raises(OutputUnavailableError, match="is there already"):
                PartialFile(again, state)
        else:
            PartialFile(again, state).grow(last=True)
            assert target.path.read_bytes() == (ANSWER + b"\n") * 2
        assert victim.read_bytes() == PRECIOUS

    def test_what_could_not_be_written_is_not_this_runs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nor is it somebody's where it could: the note comes first."""
        target, state = self.begun(tmp_path)

        with monkeypatch.context() as patched:
            patched.setattr(partial, "replacing", fails_at_once)
            with pytest.raises(OSError, match="Input/output error"):
                PartialFile(target, state)
        assert not state.partial.exists()
        with monkeypatch.context() as patched:
            patched.setattr(partial, "write_atomically", fails_at_once)
            with pytest.raises(OSError, match="Input/output error"):
                PartialFile(target, state)
        assert not target.path.exists()
        PartialFile(target, state).grow(last=True)
        PartialFile(target, state).grow(last=True)
        assert target.path.read_bytes() == ANSWER + b"\n"

    def test_a_journal_that_cannot_be_read_is_the_state_folders_fault(self, tmp_path: Path) -> None:
        target, state = self.begun(tmp_path)
        state.journal.unlink()
        state.journal.mkdir()
        with pytest.raises(OutputUnavailableError, match="the same command resumes"):
            PartialAnswers(target, state, ignore).begin()
        assert not target.path.exists() and not state.partial.exists()


def fails_at_once(*_: Any) -> None:
    raise OSError(errno.EIO, "Input/output error")
