"""What a command may write over, beside its job: nothing that is read, nothing of a run, nothing that others made.

The answers themselves have a stricter rule (`store.own_files`).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from blendrun.errors import OutputUnavailableError, UsageError, unwritable
from blendrun.files import file_mode, probe, replacing, sweep_beside, written_through
from blendrun.store.folder import ERRORS_SUFFIX, SUFFIX, StateFolder, path_text

# How much of a file tells what it is.
HEAD_BYTES = 4096
_DESCRIPTORS = ("/dev/stdout", "/dev/stderr", "/dev/fd")
# Whether a file is one that this command has made, by its content: then it may be made anew.
Made = Callable[[Path], bool]


@dataclass(frozen=True, slots=True)
class Target:
    """A file that an option names, to be written.

    option: as it is typed, for messages. own: what the command reads or keeps. made: see `Made`; None where a file does
    not tell. overwrite: what others made may be replaced. mode: of a new file; None for the umask.
    """

    path: Path
    option: str
    own: tuple[Path, ...] = ()
    made: Made | None = None
    overwrite: bool = False
    mode: int | None = None

    @property
    def file(self) -> bool:
        """Whether it is, or will be, a file that is replaced: no device, no pipe, no open descriptor."""
        if self.path.is_relative_to("/proc") or any(self.path.is_relative_to(each) for each in _DESCRIPTORS):
            return False
        try:
            mode = self.path.stat().st_mode
        except OSError:
            return True
        return stat.S_ISREG(mode) or stat.S_ISDIR(mode)

    def check(self) -> None:
        """Refuse now what `write` would refuse. Raises UsageError, OutputUnavailableError."""
        if str(self.path) == "-":
            raise UsageError(f"{self.option} - names no file; give /dev/stdout for the standard output")
        if not self.file:
            return
        name = f"{self.option} {path_text(self.path)}"
        try:
            target = written_through(self.path)
            refuse_files_of_runs(name, target, self.own, overwrite=self.overwrite)
            if target.is_dir():
                raise IsADirectoryError(errno.EISDIR, "it is a folder")
            probe(target)
            foreign = target.exists() and target.stat().st_size > 0 and not (self.made and self.made(target))
        except OSError as error:
            raise OutputUnavailableError(
                f"cannot write {path_text(self.path)}: {error.strerror}; give another file with {self.option}"
            ) from error
        if foreign and not self.overwrite:
            raise OutputUnavailableError(f"{name} is there already; give another name, or --overwrite to replace it")

    @contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """The file, which appears whole at the end. Raises as `check` does."""
        self.check()
        try:
            if not self.file:
                with self.path.open("wb") as file:
                    yield file
                return
            sweep_beside(written_through(self.path))
            with replacing(self.path, file_mode(self.path) or self.mode) as file:
                yield file
        except OSError as error:
            raise unwritable(f"{path_text(self.path)} ({self.option})", error, "run it again") from error

    def growing(self) -> BinaryIO:
        """The file, empty, for others to read while it grows. Behind `check`. Raises OSError."""
        if not self.file:
            return self.path.open("wb")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.fdopen(os.open(written_through(self.path), flags, 0o666), "wb")

    def write(self, data: bytes) -> None:
        """Raises as `check` does."""
        with self.opened() as file:
            file.write(data)


def refuse_files_of_runs(name: str, target: Path, own: Iterable[Path], *, overwrite: bool) -> None:
    """Refuse to write over what is read here, and over what runs keep or have answered, whatever it is called.

    name: of the target, for messages. own: files and folders of this command, by any path. Raises UsageError,
    OutputUnavailableError, OSError.
    """
    place = _real(target)
    for each in own:
        same = place.is_relative_to(_real(each)) or (target.exists() and each.exists() and target.samefile(each))
        if same:
            raise UsageError(f"{name} is a file of the job itself ({path_text(each)}); give another name")
    refuse_other_runs(name, target, None, overwrite=overwrite)


def refuse_other_runs(name: str, target: Path, state: StateFolder | None, *, overwrite: bool) -> None:
    """Refuse to write over what runs keep, and, without `overwrite`, over what they have answered.

    state: of the run that wants to write, if it is one. Raises UsageError, OutputUnavailableError, OSError.
    """
    place = _real(target)
    for folder in (place, *place.parents):
        if folder.name.endswith(SUFFIX) and folder.name != SUFFIX and StateFolder.at(folder).used:
            raise UsageError(f"{name} is in the state folder of a run; give another name")
    run = run_of(place)
    if run is None or overwrite or (state is not None and run.path == _real(state.path)):
        return
    raise OutputUnavailableError(
        f"{name} is what another run wrote (its state is in {path_text(run.path)}); give another name, or --overwrite"
    )


def refuse_inputs(state: StateFolder, inputs: Iterable[Path]) -> None:
    """Refuse a run's output and errors file where they are no regular files, or one of the inputs by any name.

    Refuse inputs in the run's own state folder, too: what is kept there gets the same names.

    Raises OutputUnavailableError, OSError.
    """
    given = [path for path in inputs if path.exists()]
    place = _real(state.path)
    for path in given:
        if _real(path).is_relative_to(place):
            raise OutputUnavailableError(
                f"the input {path_text(path)} is in the state folder of the output; give another -o"
            )
    for path, what in ((state.output, "the output"), (state.errors, "the errors file")):
        if not path.exists():
            continue
        if not path.is_file():
            raise OutputUnavailableError(f"{path_text(path)} is no regular file; give another -o")
        if any(path.samefile(each) for each in given):
            raise OutputUnavailableError(f"{what} {path_text(path)} is the input; give another -o")


def _real(path: Path) -> Path:
    """The path without links; of a ring of links it stays one, and whoever opens it says so."""
    return Path(os.path.realpath(path))


def run_of(path: Path) -> StateFolder | None:
    """The run whose output or errors file `path` is, where there is one."""
    names = [path.name]
    if path.name.endswith(ERRORS_SUFFIX):
        names.append(path.name.removesuffix(ERRORS_SUFFIX))
    for name in filter(None, names):
        # A name that is as long as a name can be has no room for a state folder's.
        with suppress(OSError):
            if (state := StateFolder(path.with_name(name))).used:
                return state
    return None


def begins_with(*beginnings: bytes) -> Made:
    """A file is made here if it begins like one of these."""
    return lambda path: head_of(path).startswith(beginnings)


def head_of(path: Path) -> bytes:
    """The first bytes of a file. Raises OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        return file.read(HEAD_BYTES)
