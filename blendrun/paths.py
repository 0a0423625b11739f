"""Paths as people write them: `~` is a home folder wherever a path may stand, and an address is no path."""

from __future__ import annotations

import os
import re
from pathlib import Path

from blendrun.errors import UsageError

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")
# How to have what stands at an address on stdout.
_FETCH = {"s3": "aws s3 cp '{}' -", "gs": "gcloud storage cat '{}'"}


def at_home(path: str) -> str:
    """The path with the home folder in place of `~` or `~user`, as a shell would have it.

    Raises UsageError for a path in the home folder of a user whom nobody knows.
    """
    found = os.path.expanduser(path)  # noqa: PTH111  # what is no path stays as it is
    if path.startswith("~") and found == path and "/" in path and not Path(path.partition("/")[0]).exists():
        raise UsageError(f"{path}: there is no user {path[1:].partition('/')[0]!r}; give the whole path")
    return found


def scheme(path: str) -> str | None:
    """What a path begins with that is an address (https, s3, ...); None for a path. `Path` may have halved its //."""
    found = _ADDRESS.match(path)
    return found[1].lower() if found and not Path(path).exists() else None


def how_to_read(address: str) -> str:
    """A sentence for somebody who gave an address as input."""
    kind = scheme(address)
    if kind == "file":
        return f"{address} is an address; give the file's path, {address.partition('://')[2] or address}"
    fetch = _FETCH.get(kind or "", "curl -sSfL '{}'")
    command = f"{fetch.format(address)} | blendrun run - -o answers.jsonl"
    return f"{address} is an address, and inputs are files; have it fetched: {command}"


def refuse_address(path: str, option: str) -> None:
    """Raises UsageError where an output is an address."""
    if scheme(path) is not None:
        raise UsageError(f"{option} {path} is an address; write to a file, and copy that there")
