"""What runs taught about the machine, by engine, in a small SQLite file of the user's: some 500 bytes an engine.

It serves the plan and nothing else: whatever is wrong with it is a `StepsUnavailableError`, which the caller turns into
a note and goes on.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from blendrun.database import check_version, connected, data_folder, immediate, read_only
from blendrun.learned.base import Belief, EngineKey, Floats, Known
from blendrun.simulate.steptime import CONSTANTS

_VERSION = 1
_TABLE = """
create table if not exists engines (
    engine text primary key,  -- EngineKey.text
    host text not null,
    name text not null,       -- of the model, for people
    updated real not null,    -- seconds since 1970
    runs integer not null,
    error real not null,      -- mean |error| of the last run's steps
    seconds real not null,    -- of all steps
    constants blob not null,  -- little-endian f64 (8,), seconds
    covariance blob not null  -- little-endian f64 (36,), the upper triangle, row by row
) without rowid
"""
_UPSERT = "insert or replace into engines values (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_COLUMNS = "updated, runs, error, seconds, constants, covariance"
_FORGET = """
delete from engines where engine in (select engine from engines order by updated desc limit -1 offset ?)
"""
_KEPT = 1024
_COUNT = len(CONSTANTS)
_UPPER = np.triu_indices(_COUNT)


class StepsUnavailableError(Exception):
    """What was learned cannot be read or written. Never ends a command: the message is a note for the user."""


@dataclass(frozen=True, slots=True)
class StepStore:
    """The file at `path`. Each call opens and closes it: nothing is held during a run."""

    path: Path

    @classmethod
    def open(cls, path: Path | None = None) -> StepStore:
        """The user's, or the one at `path`. Touches no file. Raises StepsUnavailableError without a home folder."""
        try:
            return cls(path or data_folder() / "steps.sqlite3")
        except RuntimeError as error:
            raise StepsUnavailableError(f"no step times of earlier runs: {error}; set BLENDRUN_DATA") from error

    def recall(self, key: EngineKey) -> Known | None:
        """What is known of an engine; None for nothing. Creates nothing. Raises StepsUnavailableError."""
        if not self.path.exists():
            return None
        with _reported(self.path), connected(read_only(self.path)) as connection:
            return _read(connection, key) if check_version(connection, _VERSION) else None

    def update(self, key: EngineKey, change: Callable[[Known | None], Known | None]) -> Known | None:
        """What `change` makes of what is known, kept. None leaves it as it is.

        One immediate transaction: of two runs that end together the second one learns on what the first one left.
        Raises StepsUnavailableError.
        """
        with _reported(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with connected(str(self.path)) as connection, immediate(connection):
                before = _read(connection, key) if check_version(connection, _VERSION) else None
                after = change(before)
                if after is not None:
                    _check(after.belief, after.runs, after.updated)
                    connection.execute(_TABLE)
                    connection.execute(f"pragma user_version = {_VERSION}")
                    connection.execute(_UPSERT, _row(key, after))
                    connection.execute(_FORGET, (_KEPT,))
                return after

    def engines(self, host: str) -> list[tuple[str, int, float, float]]:
        """Of a machine's engines: the model's name, runs, seconds since 1970, error. Last one first.

        Raises StepsUnavailableError.
        """
        if not self.path.exists():
            return []
        with _reported(self.path), connected(read_only(self.path)) as connection:
            if not check_version(connection, _VERSION):
                return []
            query = "select name, runs, updated, error from engines where host = ? order by updated desc"
            return connection.execute(query, (host,)).fetchall()


def _row(key: EngineKey, known: Known) -> tuple[object, ...]:
    belief = known.belief
    blobs = (array.astype("<f8").tobytes() for array in (belief.constants, belief.covariance[_UPPER]))
    return key.text, key.host, key.name, known.updated, known.runs, known.error, known.seconds, *blobs


def _read(connection: sqlite3.Connection, key: EngineKey) -> Known | None:
    found = connection.execute(f"select {_COLUMNS} from engines where engine = ?", (key.text,)).fetchone()
    if found is None:
        return None
    updated, runs, error, seconds, constants, upper = found
    covariance = np.zeros((_COUNT, _COUNT))
    covariance[_UPPER] = _unpacked(upper, len(_UPPER[0]))
    covariance += np.triu(covariance, 1).T
    belief = Belief(_unpacked(constants, _COUNT), covariance)
    _check(belief, runs, updated)
    return Known(belief, int(runs), float(updated), float(error), float(seconds))


def _unpacked(blob: bytes, count: int) -> Floats:
    return np.frombuffer(blob, dtype="<f8", count=count).astype(np.float64)


def _check(belief: Belief, runs: int, updated: float) -> None:
    """Raises ValueError."""
    numbers = np.concatenate((belief.constants, belief.covariance.ravel(), [float(runs), float(updated)]))
    variance = np.diag(belief.covariance)
    if not (np.isfinite(numbers).all() and (belief.constants >= 0).all() and (variance > 0).all() and runs > 0):
        raise ValueError("it holds impossible numbers")
    spread = np.sqrt(variance)
    if np.linalg.eigvalsh(belief.covariance / np.outer(spread, spread)).min() <= 0:
        raise ValueError("it holds impossible numbers")


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError, ValueError, TypeError, np.linalg.LinAlgError) as error:
        raise StepsUnavailableError(
            f"step times of earlier runs {path} are left out: {error}; delete the file if it is damaged, "
            "or set BLENDRUN_DATA to another folder"
        ) from error
