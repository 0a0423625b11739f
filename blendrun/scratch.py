"""Folders for what passes: below the system's temporary one, and gone with whoever made them, kill -9 or not.

A folder holds a file that its maker keeps locked. One that nobody locks was left by a kill, and is removed by whoever
makes the next one.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

PREFIX = "blendrun-"
_OWNER, _SHARED = "owner", "shared"
_SHARED_MEMORY = Path("/dev/shm")
# Of a process's maps: a file in shared memory that still has its name.
_MAPPED = re.compile(rf"^.* {_SHARED_MEMORY}/([^/\n]+)$", re.MULTILINE)


@dataclass(slots=True, frozen=True)
class Scratch:
    """path: the folder, readable by its owner only. owner: its locked file."""

    path: Path
    owner: BinaryIO

    @classmethod
    def make(cls, folder: Path | None = None, prefix: str = PREFIX) -> Scratch:
        """A new one; what kills have left beside it goes. folder: None for the system's. Raises OSError."""
        folder = folder or Path(tempfile.gettempdir())
        sweep(folder)
        path = Path(tempfile.mkdtemp(prefix=prefix, dir=folder))
        try:
            return cls(path, _owner(path))
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise

    def note_shared(self, processes: Iterable[int]) -> None:
        """Keep in mind the names in shared memory that these processes use: they are to go with the folder."""
        names = _noted(self.path)
        for process in processes:
            with suppress(OSError):
                maps = Path(f"/proc/{process}/maps").read_text(encoding="utf-8", errors="replace")
                names |= {name for name in _MAPPED.findall(maps) if not name.endswith(" (deleted)")}
        with suppress(OSError):
            (self.path / _SHARED).write_text("\n".join(sorted(names)), encoding="utf-8")

    def remove(self) -> None:
        """With all that is in it; what cannot be removed stays."""
        _remove(self.path)
        self.owner.close()


@contextmanager
def closing_scratch(name: str) -> Iterator[Scratch]:
    """One as long as this lasts. name: what it is for. Raises OSError."""
    scratch = Scratch.make(prefix=f"{PREFIX}{name}-")
    try:
        yield scratch
    finally:
        scratch.remove()


@contextmanager
def scratch_folder(name: str) -> Iterator[Path]:
    """The same, its folder alone."""
    with closing_scratch(name) as scratch:
        yield scratch.path


def sweep(folder: Path) -> None:
    """Remove what runs have left in `folder` that were killed by force: their files are locked by nobody."""
    for owner in folder.glob(f"{PREFIX}*/{_OWNER}"):
        # The folder is everybody's: what others have put there is left alone, and no link is followed.
        with suppress(OSError):
            if owner.parent.lstat().st_uid != os.geteuid():
                continue
            descriptor = os.open(owner, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "wb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(owner.parent)


def _owner(path: Path) -> BinaryIO:
    """The locked file of a new folder. It gets its name when it is locked: see `sweep`."""
    file = (path / f".{_OWNER}").open("wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        Path(file.name).rename(path / _OWNER)
    except BaseException:
        file.close()
        raise
    return file


def _noted(path: Path) -> set[str]:
    try:
        return set((path / _SHARED).read_text(encoding="utf-8").split("\n")) - {""}
    except (OSError, UnicodeDecodeError):
        return set()


def _remove(path: Path) -> None:
    """Remove a folder, and what was noted there of shared memory."""
    for name in _noted(path):
        with suppress(OSError):
            # Never outside of it, and nothing of another user.
            if Path(name).name == name and (_SHARED_MEMORY / name).lstat().st_uid == os.geteuid():
                (_SHARED_MEMORY / name).unlink()
    shutil.rmtree(path, ignore_errors=True)
