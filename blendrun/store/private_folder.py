"""Folders that are their user's alone: made so, or refused where they are somebody else's, or a link."""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path


def make_private(path: Path, what: str) -> None:
    """Make the folder (0700), or make sure that it is the user's own and nobody else's. Raises OSError.

    what: is kept in it, for messages.
    """
    try:
        path.mkdir(mode=0o700, parents=True)
        return
    except FileExistsError:
        pass
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        if path.is_symlink():
            raise OSError(errno.ELOOP, f"it is a link, and {what} is its user's alone") from None
        raise
    try:
        owner = os.fstat(folder).st_uid
        if owner != os.geteuid() and owner != _owner_of_new(folder):
            raise OSError(errno.EPERM, "it belongs to another user")
        # A folder that was there before may be open to others.
        os.fchmod(folder, 0o700)
    finally:
        os.close(folder)


def _owner_of_new(folder: int) -> int:
    """Whose a new file of a folder is: some file systems have one owner for all. Raises OSError."""
    name = f".{secrets.token_hex(16)}"
    try:
        handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=folder)
    except OSError:
        return -1
    os.unlink(name, dir_fd=folder)  # a name in an open folder
    owner = os.fstat(handle).st_uid
    os.close(handle)
    return owner
