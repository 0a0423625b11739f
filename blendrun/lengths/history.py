"""What earlier runs saw: lengths of answers by model and kind of request, in a small SQLite file of the user's.

The file holds counts and sums only, no text. It serves the plan and nothing else: whatever is wrong with it is a
`HistoryUnavailableError`, which the caller turns into a note and goes on.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from blendrun.database import check_version, connected, data_folder, immediate, read_only
from blendrun.lengths.evidence import BINS, Recalled, octave
from blendrun.lengths.survival import Floats, Observations, kaplan_meier

_VERSION = 1
_TABLE = """
create table if not exists kinds (
    model text not null,      -- identity of the weights
    cluster integer not null, -- Prompts.cluster, as a signed number
    updated real not null,    -- seconds since 1970
    finished real not null,   -- answers that ended, decayed like the rest
    censored real not null,   -- answers cut off before their end, counted at the length they would have had
    octaves blob not null,    -- little-endian f64 (3, 32): count, sum, sum of squares of each octave of lengths
    primary key (model, cluster)
) without rowid
"""
_UPSERT = "insert or replace into kinds values (?, ?, ?, ?, ?, ?)"
_FORGET = """
delete from kinds where (model, cluster) in (
    select model, cluster from kinds order by updated desc limit -1 offset ?)
"""

# What was seen counts half after 30 days, and half once 4,096 newer answers have come: last night's run outweighs all
# before it, and a try with ten requests outweighs nothing.
_HALF_LIFE_SECONDS = 30 * 86400.0
_HALF_LIFE_ANSWERS = 4096.0
# A job in which every request is a kind of its own (each with its own max_tokens) must not fill the disk.
_KINDS_A_RUN = 4096
_KINDS_KEPT = 65536


class HistoryUnavailableError(Exception):
    """The history cannot be read or written. Never ends a command: the message is a note for the user."""


@dataclass(frozen=True, slots=True)
class History:
    """The file at `path`. Each call opens and closes it: nothing is held during a run."""

    path: Path

    @classmethod
    def open(cls, path: Path | None = None) -> History:
        """The user's history, or the one at `path`. Touches no file; fails only where the user has no home folder."""
        try:
            return cls(path or data_folder() / "history.sqlite3")
        except RuntimeError as error:
            raise HistoryUnavailableError(f"no history of lengths: {error}; set BLENDRUN_DATA to a folder") from error

    def recall(self, model: str, clusters: NDArray[np.uint64], *, now: float | None = None) -> Recalled:
        """What is known of these kinds of request with this model. Creates nothing; a missing file knows nothing.

        model: identity of the weights (`ResolvedModel.identity`). clusters: u64, any length, repeats allowed.
        now: seconds since 1970, by default the clock's.
        """
        moment = time.time() if now is None else now
        wanted = set(np.unique(clusters).view(np.int64).tolist())
        with _reported(self.path):
            rows = [row for row in self._rows(model) if row[0] in wanted]
            known = np.array([row[0] for row in rows], dtype=np.int64).view(np.uint64)
            octaves = np.array([_unpacked(row[2]) * _kept(moment - row[1]) for row in rows]).reshape(len(rows), 3, BINS)
        order = np.argsort(known)
        return Recalled(known[order], *(octaves[order, part] for part in range(3)))

    def record(
        self,
        model: str,
        clusters: NDArray[np.uint64],
        tokens: Floats,
        finished: NDArray[np.bool_],
        *,
        now: float | None = None,
    ) -> None:
        """Add answers of a run, each once: kind, tokens, and whether it ended (by itself or at its bound): (S,).

        One immediate transaction: of two runs that end together one waits for the other, five seconds at most. Kinds of
        which no answer finished are left out: how long those would have been is anybody's guess.
        """
        moment = time.time() if now is None else now
        batch = _summed(clusters, np.asarray(tokens, dtype=np.float64), finished)
        if not batch:
            return
        with _reported(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with connected(str(self.path)) as connection, immediate(connection):
                check_version(connection, _VERSION)
                connection.execute(_TABLE)
                connection.execute(f"pragma user_version = {_VERSION}")
                _merge(connection, model, batch, moment)
                connection.execute(_FORGET, (_KINDS_KEPT,))

    def _rows(self, model: str) -> list[tuple[int, float, bytes]]:
        if not self.path.exists():
            return []
        with connected(read_only(self.path)) as connection:
            if check_version(connection, _VERSION) == 0:
                return []
            query = "select cluster, updated, octaves from kinds where model = ?"
            return connection.execute(query, (model,)).fetchall()


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    """New answers of one kind. octaves: f64 (3, BINS)."""

    cluster: int
    finished: float
    censored: float
    octaves: Floats


def _summed(clusters: NDArray[np.uint64], tokens: Floats, finished: NDArray[np.bool_]) -> list[_Batch]:
    """The answers of each kind, largest kinds first. Those cut off count with the length that the others let expect."""
    keys, group = np.unique(clusters, return_inverse=True)
    kinds = len(keys)
    ended = np.bincount(group, finished, kinds)
    cut = np.bincount(group, ~finished, kinds)
    longest = np.zeros(kinds)
    np.maximum.at(longest, group, tokens)
    guess = np.bincount(group, tokens, kinds) / np.maximum(ended, 1.0)
    curves = kaplan_meier(Observations(group, tokens, finished, np.ones(len(tokens))), 2.0 * longest, guess)
    mean, square = curves.beyond(group, tokens)
    mean, square = np.where(finished, tokens, mean), np.where(finished, tokens**2, square)

    place = group * BINS + octave(mean)
    sums = [np.bincount(place, part, kinds * BINS).reshape(kinds, BINS) for part in (np.ones(len(mean)), mean, square)]
    octaves = np.stack(sums, axis=1)
    chosen = [kind for kind in np.argsort(-ended, kind="stable")[:_KINDS_A_RUN].tolist() if ended[kind] > 0]
    signed = keys.view(np.int64)
    return [_Batch(int(signed[kind]), float(ended[kind]), float(cut[kind]), octaves[kind]) for kind in chosen]


def _merge(connection: sqlite3.Connection, model: str, batch: list[_Batch], now: float) -> None:
    query = "select updated, finished, censored, octaves from kinds where model = ? and cluster = ?"
    for kind in batch:
        finished, censored, octaves = kind.finished, kind.censored, kind.octaves
        found = connection.execute(query, (model, kind.cluster)).fetchone()
        if found is not None:
            keep = _kept(now - found[0], kind.finished + kind.censored)
            finished, censored = finished + keep * found[1], censored + keep * found[2]
            octaves = octaves + keep * _unpacked(found[3])
        row = (model, kind.cluster, now, finished, censored, octaves.astype("<f8").tobytes())
        connection.execute(_UPSERT, row)


def _kept(seconds: float, answers: float = 0.0) -> float:
    """What is left of a weight after this time and this many newer answers. A clock set back makes nothing heavier."""
    return float(0.5 ** (max(seconds, 0.0) / _HALF_LIFE_SECONDS + answers / _HALF_LIFE_ANSWERS))


def _unpacked(octaves: bytes) -> Floats:
    values = np.frombuffer(octaves, dtype="<f8").astype(np.float64).reshape(3, BINS)
    if not (np.isfinite(values).all() and (values >= 0).all()):
        raise ValueError("it holds impossible numbers")
    return values


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError, ValueError, TypeError) as error:
        raise HistoryUnavailableError(
            f"the history of lengths {path} is left out: {error}; delete the file if it is damaged, "
            "or set BLENDRUN_DATA to another folder"
        ) from error
