"""Token stores on disk: one file holds all arrays of a tokenised job and is memory-mapped when it is needed again.

Layout: a magic word, the arrays one after the other (the token ids first, as they come), a footer in JSON that says
what each is, and a tail with the footer's length and digest. A file without a whole tail is no store: writers that
die leave only a temporary name behind, and a file that was cut or comes from elsewhere is made anew.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import tempfile
import time
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
import orjson
from numpy.typing import NDArray

from blendrun.errors import OutputUnavailableError

# Stores beyond this are dropped, those not used for longest first; the one just made always stays.
MAX_STORE_BYTES = 8 << 30
SUFFIX = ".tokens"
_MAGIC = b"blendrun tokens\n"
_ALIGNMENT = 64
_TAIL = struct.Struct("<Q16s8s")
_END = b"complete"
_TEMPORARY = ".tokens-"
_ABANDONED_S = 86_400


class StoreWriter:
    """Writes one store. Used as a context: what is not finished by its end leaves nothing behind."""

    def __init__(self, folder: Path, key: str) -> None:
        """Raises OutputUnavailableError, as all methods do."""
        self._path = folder / f"{key}{SUFFIX}"
        self._key = key
        self._arrays: dict[str, tuple[str, int, int]] = {}
        with _writing(self._path):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(prefix=_TEMPORARY, suffix=".tmp", dir=folder)
            self._temporary = Path(temporary)
            self._file: BinaryIO = os.fdopen(handle, "wb")
            self._file.write(_MAGIC.ljust(_ALIGNMENT, b"\0"))
        self._first = self._position = _ALIGNMENT

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        self._temporary.unlink(missing_ok=True)

    def extend(self, ids: NDArray[np.int32]) -> None:
        """Append to the array "units"."""
        with _writing(self._path):
            self._file.write(np.ascontiguousarray(ids, dtype="<i4").data)
        self._position += 4 * len(ids)

    def finish(self, arrays: Mapping[str, NDArray[Any]], notes: object) -> Path:
        """Add the other arrays and `notes` (JSON), and give the file its name."""
        layout = {"units": ("<i4", self._first, (self._position - self._first) // 4)}
        with _writing(self._path):
            for name, array in arrays.items():
                self._align()
                layout[name] = (array.dtype.str, self._position, len(array))
                self._file.write(np.ascontiguousarray(array).data)
                self._position += array.nbytes
            footer = orjson.dumps({"key": self._key, "arrays": layout, "notes": notes})
            self._file.write(footer)
            self._file.write(_TAIL.pack(len(footer), _digest(footer), _END))
            self._file.flush()
            os.fsync(self._file.fileno())
            return self._temporary.replace(self._path)

    def _align(self) -> None:
        gap = -self._position % _ALIGNMENT
        self._file.write(bytes(gap))
        self._position += gap


def open_store(folder: Path, key: str) -> tuple[dict[str, NDArray[Any]], Any] | None:
    """(arrays by name, notes) of a store that is there and whole, else None. Marks it as used."""
    path = folder / f"{key}{SUFFIX}"
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        footer, end = _footer(mapped, key)
        arrays = {name: _array(mapped, end, *place) for name, place in footer["arrays"].items()}
    except (OSError, ValueError, TypeError, KeyError, struct.error):
        return None
    with contextlib.suppress(OSError):
        os.utime(path)
    return arrays, footer["notes"]


def prune(folder: Path, keep: str, limit: int = MAX_STORE_BYTES) -> None:
    """Drop the stores not used for longest until all others are at most `limit` bytes. keep: a key that stays.

    A store that another process has open stays readable to it until it lets go.
    """
    total = 0
    for used, size, path in sorted(_files(folder), reverse=True):
        if path.name.startswith(_TEMPORARY):
            if time.time() - used > _ABANDONED_S:
                path.unlink(missing_ok=True)
            continue
        total += size
        if total > limit and path.stem != keep:
            path.unlink(missing_ok=True)


def _files(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """(time of last use, bytes, path) of stores and of what writers left."""
    for path in (*folder.glob(f"*{SUFFIX}"), *folder.glob(f"{_TEMPORARY}*.tmp")):
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            yield status.st_mtime, status.st_size, path


def _footer(mapped: mmap.mmap, key: str) -> tuple[dict[str, Any], int]:
    """The footer and where it begins. Raises ValueError, KeyError or struct.error."""
    length, digest, end = _TAIL.unpack(mapped[-_TAIL.size :])
    begin = len(mapped) - _TAIL.size - length
    if end != _END or begin < _ALIGNMENT or not mapped[: len(_MAGIC)] == _MAGIC:
        raise ValueError("no store")
    content = mapped[begin : begin + length]
    footer: dict[str, Any] = orjson.loads(content)
    if _digest(content) != digest or footer["key"] != key:
        raise ValueError("not this store")
    return footer, begin


def _array(mapped: mmap.mmap, end: int, dtype: str, offset: int, count: int) -> NDArray[Any]:
    kind = np.dtype(dtype)
    if offset + count * kind.itemsize > end:
        raise ValueError("array outside the file")
    return np.frombuffer(mapped, dtype=kind, count=count, offset=offset)


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=16).digest()


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputUnavailableError(
            f"cannot write {path}: {error.strerror}; free some space or set BLENDRUN_CACHE to another folder"
        ) from error
