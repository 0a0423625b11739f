"""Files that are replaced whole: a reader sees the old content or the new one, never a part.

Until then the new content has a name that nobody can guess and nobody else's file can have. A link of the user's own is
written through: it stays, and the file that it leads to is replaced. A link in a folder that others may write to may be
anybody's, and is not followed.

Not for what gets its name only when it is written (`jobs.spool`, `tokens.store`), nor for folders (`models.gguf`).
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from blendrun.errors import unwritable

# Of files that only their owner reads.
PRIVATE = 0o600
# A passing file that was not written to for so many seconds, and is locked by nobody, is left over.
_LEFT_S = 60.0
# As many links in a row as the kernel follows.
_MOST_LINKS = 40
_TEMPORARY = re.compile(r"\.blendrun-[0-9a-f]{32}\.tmp")
_NEW = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def replacing(path: Path, mode: int | None, parts: Path | None = None) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` at the end; what fails before leaves nothing. Raises OSError.

    Only a file is replaced: a device, a pipe or a socket would be gone for everybody.

    mode: permissions to give; None for those that a new file gets (the umask). parts: a private file that keeps the
    passing name, so that `sweep` can remove what a kill leaves.
    """
    target = _replaceable(path)
    temporary = _temporary_beside(target)
    if parts is not None:
        _note(parts, temporary)
    try:
        handle = os.open(temporary, os.O_RDWR | _NEW, 0o666 if mode is None else mode & PRIVATE)
        with os.fdopen(handle, "w+b") as file:
            # Where locks are not to be had, a kill leaves the file for good.
            with suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if mode is not None:
                os.fchmod(handle, mode)
            yield file
            file.flush()
            os.fsync(handle)
            temporary.replace(target)
            _check_same(handle, target)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file that only its owner reads. Raises OutputUnavailableError."""
    try:
        with replacing(path, PRIVATE) as file:
            file.write(data)
    except OSError as error:
        raise unwritable(path, error, "the same command goes on") from error


def probe(path: Path) -> None:
    """Find out whether `replacing` could replace `path`. Raises OSError."""
    temporary = _temporary_beside(_replaceable(path))
    os.close(os.open(temporary, os.O_WRONLY | _NEW, PRIVATE))
    temporary.unlink()


def remove_written(path: Path) -> None:
    """Remove the file that is written where `path` is; a link of the user's own stays. Raises OSError."""
    written_through(path).unlink()


def sweep(parts: Path) -> None:
    """Remove what a kill has left of the files that `parts` names. What cannot be removed stays."""
    with suppress(OSError):
        for name in parts.read_bytes().split(b"\0")[:-1]:
            left = Path(os.fsdecode(name))
            # The folder may have been made anew since, by anybody.
            if _TEMPORARY.fullmatch(left.name) and stat.S_ISREG(left.lstat().st_mode):
                left.unlink()
    with suppress(OSError):
        parts.unlink()


def sweep_beside(path: Path) -> None:
    """Remove what kills have left in the folder of `path`: files of the user's own that nobody works on any more."""
    with suppress(OSError), os.scandir(path.parent) as entries:
        names = [entry.name for entry in entries if _TEMPORARY.fullmatch(entry.name)]
        for left in (path.with_name(name) for name in names):
            with suppress(OSError):
                _remove_left(left)


def _remove_left(left: Path) -> None:
    """Raises OSError where it is somebody's, or is worked on."""
    handle = os.open(left, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(handle)
        # It is locked a moment after it is made.
        if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and time.time() - found.st_mtime > _LEFT_S:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()
    finally:
        os.close(handle)


def sweep_folder(folder: Path) -> None:
    """Remove what a kill has left in a folder that is blendrun's own."""
    with suppress(OSError):
        for left in folder.glob(".blendrun-*.tmp"):
            if _TEMPORARY.fullmatch(left.name):
                left.unlink()


def written_through(path: Path) -> Path:
    """The file that is replaced where `path` is: the one that a link of the user's own leads to, else itself.

    It need not be there. Raises OSError for a link in a folder that others may write to, and for links in a ring.
    """
    for _ in range(_MOST_LINKS):
        if not path.is_symlink():
            return path
        if _may_be_planted(path):
            raise OSError(errno.EPERM, "it is a link, which others may have put there")
        path = path.parent / path.readlink()
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _replaceable(path: Path) -> Path:
    """The file that is replaced where `path` is. Raises OSError where something else is there, or a planted link."""
    target = written_through(path)
    with suppress(FileNotFoundError):
        mode = target.lstat().st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is no regular file")
    return target


def file_mode(path: Path) -> int | None:
    """Permissions of a file that is to be replaced; None where there is none yet."""
    return stat.S_IMODE(path.stat().st_mode) if path.exists() else None


def _may_be_planted(link: Path) -> bool:
    """Whether somebody else than the user and root could have made a link."""
    trusted = (os.geteuid(), 0)
    folder = link.parent.stat()
    return bool(folder.st_mode & stat.S_IWOTH) or not {folder.st_uid, link.lstat().st_uid} <= {*trusted}


def _temporary_beside(target: Path) -> Path:
    """Of a length that does not depend on the target's name, which may be as long as a name can be."""
    return target.absolute().with_name(f".blendrun-{secrets.token_hex(16)}.tmp")


def _note(parts: Path, temporary: Path) -> None:
    handle = os.open(parts, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, PRIVATE)
    with os.fdopen(handle, "ab") as file:
        file.write(os.fsencode(temporary) + b"\0")


def _check_same(handle: int, target: Path) -> None:
    """Raises OSError where somebody put another file in place of the new one before it got its name."""
    ours, there = os.fstat(handle), target.lstat()
    if (ours.st_dev, ours.st_ino) != (there.st_dev, there.st_ino):
        raise OSError(errno.EPERM, "somebody else replaces files in that folder")
