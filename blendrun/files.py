"""Files that are replaced whole: a reader sees the old content or the new one, never a part.

Not for what gets its name only when it is written (`jobs.spool`, `tokens.store`), nor for folders (`models.gguf`).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from blendrun.errors import UsageError, unwritable

# Of files that only their owner reads.
PRIVATE = 0o600


@contextmanager
def replacing(path: Path, mode: int | None) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` at the end; what fails before leaves nothing. Raises OSError.

    mode: permissions to give; None for those that a new file gets (the umask).
    """
    temporary = temporary_for(path)
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666 if mode is None else mode & PRIVATE)
        with os.fdopen(handle, "wb") as file:
            if mode is not None:
                os.fchmod(handle, mode)
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file that only its owner reads. Raises OutputUnavailableError."""
    try:
        with replacing(path, PRIVATE) as file:
            file.write(data)
    except OSError as error:
        raise unwritable(path, error, "the same command goes on") from error


def refuse_overwriting(path: Path, own: Iterable[Path | str], what: str) -> None:
    """Refuse to write over a file that is read, whatever it is called: by another path, a link, a hard link.

    what: the option that names `path`. Raises UsageError.
    """
    for each in map(Path, own):
        same = path.resolve() == each.resolve() or (path.exists() and each.exists() and path.samefile(each))
        if same:
            raise UsageError(f"{what} {path} is a file of the job itself ({each}); give another name")


def temporary_for(path: Path) -> Path:
    """The name under which `path` is written."""
    return path.with_name(f".{path.name}.tmp")


def file_mode(path: Path) -> int | None:
    """Permissions of a file that is to be replaced; None where there is none yet."""
    return stat.S_IMODE(path.stat().st_mode) if path.exists() else None
