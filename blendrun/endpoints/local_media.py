"""Files below one folder that request lines may name: read, whatever they are, by their real place."""

from __future__ import annotations

import mimetypes
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Bytes of all media of a line: in base64 they are as long as the longest line that is read.
LARGEST_BYTES = 48 << 20


class MediaError(Exception):
    """What is wrong with a reference: the end of a sentence that begins with it."""


class TooLargeError(MediaError):
    """There are more bytes than were allowed."""


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes, and their type as the file's name or the server has it; "" for unknown."""

    data: bytes
    type: str


def read_below(folder: Path, url: str, largest: int) -> Content:
    """A file by `file://` URL or path; a relative one is looked for in `folder`. Raises MediaError.

    What counts is where the file really lies, behind all symbolic links.
    """
    folder = folder.resolve()
    try:
        path = (folder / _path_of(url)).resolve()
        _check_below(folder, path)
        # Never waits (a pipe would), never follows a link that was put there since.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise MediaError("is no regular file")
            # Of what was opened, not of what was looked at.
            _check_below(folder, Path(f"/proc/self/fd/{handle}").readlink())
            with open(handle, "rb", closefd=False) as file:
                data = file.read(largest + 1)
        finally:
            os.close(handle)
    except (OSError, ValueError, RuntimeError) as error:
        raise MediaError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    check_size(len(data), largest)
    return Content(data, mimetypes.guess_type(path.name)[0] or "")


def _path_of(url: str) -> str:
    if not url.lower().startswith("file:"):
        return url
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise MediaError(f"names the host {parts.netloc!r}; write file:///PATH")
    return unquote(parts.path)


def _check_below(folder: Path, path: Path) -> None:
    if not path.is_relative_to(folder):
        raise MediaError(f"lies outside of {folder}, the folder of --allow-media-files")


def check_size(size: int, largest: int) -> None:
    """Raises TooLargeError."""
    if size > largest:
        raise TooLargeError(f"has more than {largest:,} bytes")
