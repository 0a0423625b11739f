"""Small SQLite files of the user's that serve plans and nothing else: opened for each call, never held during a run."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_WAIT_SECONDS = 5.0
_SWITCH = "BLENDRUN_LEARN"
_OFF = ("0", "no", "off", "false")


def data_folder() -> Path:
    """Where blendrun keeps what it learned: $BLENDRUN_DATA, $XDG_DATA_HOME/blendrun or ~/.local/share/blendrun."""
    given = os.environ.get("BLENDRUN_DATA")
    if given:
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "blendrun"


def learns() -> bool:
    """Whether runs leave anything to later ones, and plans look at it: unless $BLENDRUN_LEARN is off."""
    return os.environ.get(_SWITCH, "").strip().lower() not in _OFF


@contextmanager
def connected(database: str) -> Iterator[sqlite3.Connection]:
    """A connection to a path or a `file:` address; another one may hold the file for five seconds."""
    # The rollback journal, not WAL: home folders of clusters lie on network file systems, where WAL does not work.
    connection = sqlite3.connect(
        database, timeout=_WAIT_SECONDS, isolation_level=None, uri=database.startswith("file:")
    )
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def immediate(connection: sqlite3.Connection) -> Iterator[None]:
    """A transaction that writes: all of it or nothing, one after the other."""
    # Not deferred: two that read first and write later would lock each other out.
    connection.execute("begin immediate")
    try:
        yield
    except BaseException:
        connection.execute("rollback")
        raise
    connection.execute("commit")


def read_only(path: Path) -> str:
    """The address of a file that is not to be written: a shared one may lie where the user cannot write."""
    return f"{path.absolute().as_uri()}?mode=ro"


def check_version(connection: sqlite3.Connection, known: int) -> int:
    """The version of a file's tables, 0 for a new one. Raises ValueError for one of another version of blendrun."""
    version: int = connection.execute("pragma user_version").fetchone()[0]
    if version not in (0, known):
        raise ValueError(f"it was written by another version of blendrun (format {version}, not {known})")
    return version
