"""Answers that are kept between runs and files, in a folder of the user's: a small SQLite database of bounded size.

Several processes may use it at a time. It serves to save work and nothing else: what is wrong with it costs what is in
it, never a run, and never an answer that is not what was kept.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import orjson

from blendrun.database import check_version, connected, immediate
from blendrun.endpoints.base import MOST_TOKENS, Usage
from blendrun.errors import OutputUnavailableError
from blendrun.store.private_folder import make_private

NAME = "answers.sqlite3"
_VERSION = 1
_TABLE = """
create table if not exists answers (
    key blob primary key,      -- 16 bytes: what was asked, and all that decides its answer
    used integer not null,     -- milliseconds since 1970, when it was last kept or taken
    checksum integer not null, -- CRC-32 of key and answer
    answer blob not null       -- `KeptAnswer` as MessagePack
)
"""
_INDEX = "create index if not exists by_use on answers (used)"
# Of one transaction, whichever comes first; and bytes that wait for it at most, while another process has the file.
_BATCH_ROWS, _BATCH_BYTES, _BATCH_SECONDS = 256, 8 << 20, 2.0
_MOST_WAITING = 64 << 20
_ASKED_AT_ONCE = 100
# Others write some milliseconds; an engine must not wait for long. At the end of a run that is tried again.
_PATIENCE = "pragma busy_timeout = 1000"
_LAST_TRIES = 5
# So much of the bound is kept when there is too much: making room is not for every batch.
_KEPT_SHARE = 0.95
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
# Of the bound: a larger answer would push too much out. What is kept of it beside its body is shorter than this.
_LARGEST_SHARE, _BESIDE_BYTES = 16, 1 << 16


class KeptAnswer(msgspec.Struct, frozen=True, array_like=True):
    """An answer as the engine gave it. body: JSON; usage: what it took then."""

    body: bytes
    usage: Usage
    finish_reasons: tuple[str, ...]


_DECODER = msgspec.msgpack.Decoder(KeptAnswer)


class AnswerCache:
    """In one folder. Keys are 16 bytes. The file is opened for each call, never held."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        """most_bytes: of the file. Raises OutputUnavailableError where the folder is not the user's own, or one of
        something else.
        """
        refuse_other_folder(folder)
        try:
            make_private(folder, "a cache of answers")
        except OSError as error:
            raise OutputUnavailableError(
                f"cannot keep answers in {folder}: {error.strerror}; give another folder with --cache"
            ) from error
        self.path, self._most = folder / NAME, most_bytes
        # Sentences on what went wrong, for the user.
        self.notes: list[str] = []
        self._usable = True
        self._waiting: dict[bytes, KeptAnswer] = {}
        self._bytes = 0
        self._wrote = time.monotonic()

    def known(self, keys: Sequence[bytes]) -> list[bool]:
        """Whether there is an answer for each key."""
        found: set[bytes] = set()
        with self._guarded(), self._reading() as connection:
            for some in _some(keys):
                found.update(row[0] for row in connection.execute(_select("key", len(some)), some))
        return [key in found for key in keys]

    def take(self, keys: Sequence[bytes]) -> Iterator[tuple[int, KeptAnswer]]:
        """The places of keys that have an answer, with it, and note down that they were used."""
        places: dict[bytes, list[int]] = {}
        for place, key in enumerate(keys):
            places.setdefault(key, []).append(place)
        for some in self._together(list(places)):
            rows: list[tuple[bytes, int, bytes]] = []
            with self._guarded(), self._reading() as connection:
                rows = connection.execute(_select("key, checksum, answer", len(some)), some).fetchall()
            found = [(key, kept) for key, checksum, answer in rows if (kept := _sound(key, checksum, answer))]
            if rows:
                self._mark(tuple(key for key, _ in found), tuple({row[0] for row in rows} - {key for key, _ in found}))
            for key, kept in found:
                yield from ((place, kept) for place in places[key])

    def _together(self, keys: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
        """Keys that have an answer, as many as may be held at a time. One that is larger than `put` keeps has none."""
        for some in _some(keys):
            sizes: list[tuple[bytes, int]] = []
            with self._guarded(), self._reading() as connection:
                sizes = connection.execute(_select("key, length(answer)", len(some)), some).fetchall()
            held, size = list[bytes](), 0
            for key, more in sizes:
                if more > self._most // _LARGEST_SHARE + _BESIDE_BYTES:
                    continue
                if held and size + more > _BATCH_BYTES:
                    yield held
                    held, size = [], 0
                held.append(key)
                size += more
            if held:
                yield held

    def put(self, key: bytes, answer: KeptAnswer) -> None:
        """Keep an answer; it is on disk some seconds later."""
        size = len(answer.body)
        if not self._usable or size > self._most // _LARGEST_SHARE:
            return
        while self._waiting and self._bytes + size > _MOST_WAITING:
            oldest = next(iter(self._waiting))
            self._bytes -= len(self._waiting.pop(oldest).body)
        self._waiting[key] = answer
        self._bytes += size
        late = time.monotonic() - self._wrote > _BATCH_SECONDS
        if late or len(self._waiting) % _BATCH_ROWS == 0 or self._bytes > _BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what waits; where another process has the file, it goes on waiting."""
        if not self._waiting:
            return
        self._wrote, now = time.monotonic(), _now()
        rows = [(key, now, *_packed(key, answer)) for key, answer in self._waiting.items()]
        with self._guarded(), self._writing() as connection:
            with immediate(connection):
                connection.executemany("insert or replace into answers values (?, ?, ?, ?)", rows)
                _make_room(connection, self._most)
            # A script: `execute` would take the first of its steps only, which is a page.
            connection.executescript("pragma incremental_vacuum")
            self._waiting.clear()
            self._bytes = 0

    def close(self) -> None:
        """Write what waits."""
        for _ in range(_LAST_TRIES):
            self.flush()

    def _mark(self, used: tuple[bytes, ...], bad: tuple[bytes, ...]) -> None:
        """Used ones go last, damaged ones go. Where another process writes, that is not worth waiting."""
        with self._guarded(), self._writing() as connection, immediate(connection):
            connection.executemany("update answers set used = ? where key = ?", [(_now(), key) for key in used])
            connection.executemany("delete from answers where key = ?", [(key,) for key in bad])

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        if not self._usable or not self.path.exists():
            # An empty one.
            with connected(":memory:") as connection:
                connection.execute(_TABLE)
                yield connection
            return
        self._check_owner()
        # Not for reading only: what a kill has left half is taken back by whoever opens it next.
        with connected(str(self.path)) as connection:
            connection.execute(_PATIENCE)
            if check_version(connection, _VERSION) == 0:
                connection.execute("create temp table answers (key blob, used, checksum, answer)")
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        if not self._usable:
            raise OSError("it is not used any more")
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        self._check_owner()
        with connected(str(self.path)) as connection:
            connection.execute(_PATIENCE)
            if check_version(connection, _VERSION) == 0:
                # Before the first table: what is deleted is given back to the file system.
                connection.execute("pragma auto_vacuum = incremental")
                with immediate(connection):
                    connection.execute(_TABLE)
                    connection.execute(_INDEX)
                    connection.execute(f"pragma user_version = {_VERSION}")
            yield connection

    def _check_owner(self) -> None:
        """Raises OSError for a file that was put there before the folder was closed to others."""
        for path in (self.path, self._journal):
            with suppress(FileNotFoundError):
                found = path.lstat()
                if not stat.S_ISREG(found.st_mode) or found.st_uid != self.path.parent.stat().st_uid:
                    raise OSError(f"{path.name} there is not a file of this user's own")

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Whatever fails costs the cache: a damaged file is begun anew, with any other trouble it is not used."""
        if not self._usable:
            # Nothing is there, and nothing is kept.
            with suppress(OSError):
                yield
            return
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in _BUSY:
                return
            if code not in _DAMAGED:
                self._give_up(error)
                return
            self.notes.append(f"the answers kept in {self.path} are damaged ({error}): begun anew")
            self._begin_anew()
        except (OSError, ValueError) as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._usable = False
        self.notes.append(f"answers are not kept in {self.path}, nor taken from there: {error}")

    @property
    def _journal(self) -> Path:
        return self.path.with_name(f"{NAME}-journal")

    def _begin_anew(self) -> None:
        for path in (self.path, self._journal):
            with suppress(OSError):
                path.unlink(missing_ok=True)
        if self.path.exists():
            self._usable = False


def refuse_other_folder(folder: Path) -> None:
    """Refuse a folder that holds something else: it would be closed to others. Raises OutputUnavailableError."""
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError:
        # None yet, or one that whoever makes it private says more of.
        return
    if names and NAME not in names and not all(name.startswith(NAME) for name in names):
        raise OutputUnavailableError(
            f"--cache {folder} holds other files, and a cache of answers is a folder of its own, closed to others; "
            "give a new or an empty folder"
        )


def _some(keys: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    return (keys[begin : begin + _ASKED_AT_ONCE] for begin in range(0, len(keys), _ASKED_AT_ONCE))


def _select(columns: str, keys: int) -> str:
    return f"select {columns} from answers where key in ({', '.join('?' * keys)})"


def _packed(key: bytes, answer: KeptAnswer) -> tuple[int, bytes]:
    data = msgspec.msgpack.encode(answer)
    return zlib.crc32(key + data), data


def _sound(key: object, checksum: object, data: object) -> KeptAnswer | None:
    """An answer as it was kept; None where it is not that any more."""
    if not isinstance(key, bytes) or not isinstance(data, bytes) or zlib.crc32(key + data) != checksum:
        return None
    try:
        found = _DECODER.decode(data)
        if b"\n" in found.body or not isinstance(orjson.loads(found.body), dict):
            return None
    except (msgspec.DecodeError, orjson.JSONDecodeError):
        return None
    counts = msgspec.structs.astuple(found.usage)
    return found if all(0 <= count <= MOST_TOKENS for count in counts) else None


def _make_room(connection: sqlite3.Connection, most: int) -> None:
    """Forget what was not used for longest, until the file's pages in use are within the bound."""
    if _in_use(connection) <= most:
        return
    while (used := _in_use(connection)) > most * _KEPT_SHARE:
        rows = connection.execute("select count(*) from answers").fetchone()[0]
        if not rows:
            return
        some = int(rows * (1 - _KEPT_SHARE * most / used)) + 1
        connection.execute(
            "delete from answers where key in (select key from answers order by used, key limit ?)", (some,)
        )


def _in_use(connection: sqlite3.Connection) -> int:
    """Bytes of pages that hold something."""
    pages, free, size = (
        connection.execute(f"pragma {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def _now() -> int:
    return time.time_ns() // 1_000_000
