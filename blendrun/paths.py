"""Paths as people write them: `~` is a home folder wherever a path may stand, and an address is no path."""

from __future__ import annotations

import os
import re
from pathlib import Path

from blendrun.errors import UsageError

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")


def at_home(path: str) -> str:
    """The path with the home folder in place of `~` or `~user`, as a shell would have it.

    Raises UsageError for a path in the home folder of a user whom nobody knows.
    """
    found = os.path.expanduser(path)  # noqa: PTH111  # what is no path stays as it is
    if path.startswith("~") and found == path and "/" in path and not Path(path.partition("/")[0]).exists():
        raise UsageError(f"{path}: there is no user {path[1:].partition('/')[0]!r}; give the whole path")
    return found


def scheme(path: str) -> str | None:
    """What a path begins with that is an address (https, ftp, ...); None for a path. `Path` may have halved its //."""
    found = _ADDRESS.match(path)
    # What is longer than a name can be is no file either.
    return found[1].lower() if found and not os.path.exists(path) else None  # noqa: PTH110


def how_to_read(address: str) -> str:
    """A sentence for somebody who gave an address that is not fetched as input. address: as it may be shown."""
    kind = scheme(address)
    if kind == "file":
        return f"{address} is an address; give the file's path, {address.partition('://')[2] or address}"
    return (
        f"{kind}:// is fetched by nobody here (https, s3, gs and az are); have it fetched: "
        "curl -sSfL ADDRESS | blendrun run - -o answers.jsonl"
    )


def refuse_address(path: str, option: str) -> None:
    """Raises UsageError where an output is an address."""
    if (kind := scheme(path)) is not None:
        raise UsageError(f"{option} {kind}://… is an address; write to a file, and copy that there")
