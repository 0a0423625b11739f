"""The folder that is a server's whole memory: a JSON file for each object, and the contents of files beside them.

STORE/files/ID.json, ID.content; STORE/batches/ID.json; STORE/runs/ID/ (the state of a run, `desk`); STORE/key.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
from filelock import FileLock, Timeout

from blendrun.errors import OutputUnavailableError, unwritable
from blendrun.files import PRIVATE, write_atomically
from blendrun.service.objects import ENDED, BatchObject, FileObject, new_id, now

_Object = TypeVar("_Object", FileObject, BatchObject)


class Store:
    """Objects by id; each belongs to a key, and another key does not see it. Safe from several threads."""

    def __init__(self, folder: Path) -> None:
        """Raises OutputUnavailableError where it cannot be used, or another server uses it."""
        self.folder = folder
        self._guard = threading.RLock()
        try:
            for name in ("files", "batches", "runs"):
                (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
            self._lock = FileLock(folder / "lock")
            self._lock.acquire(timeout=0)
        except Timeout:
            raise OutputUnavailableError(f"another server works on {folder}: give another --store") from None
        except OSError as error:
            raise unwritable(folder, error, "start the server again") from error
        self.files = _load(folder / "files", FileObject)
        self.batches = _load(folder / "batches", BatchObject)
        files, batches = self.files.values(), self.batches.values()
        self._numbers = max([0, *(each.number for each in files), *(each.number for each in batches)])
        self._sweep()

    def close(self) -> None:
        self._lock.release()

    def content(self, file: FileObject) -> Path:
        return self.folder / "files" / f"{file.id}.content"

    def run(self, name: str) -> Path:
        """The folder of a run."""
        return self.folder / "runs" / name

    def file_of(self, owner: str, name: str) -> FileObject | None:
        found = self.files.get(name)
        return found if found is not None and found.owner == owner and not _expired(found) else None

    def batch_of(self, owner: str, name: str) -> BatchObject | None:
        found = self.batches.get(name)
        return found if found is not None and found.owner == owner else None

    @contextlib.contextmanager
    def new_file(
        self, owner: str, filename: str, purpose: str, name: str | None = None, lasts: int | None = None
    ) -> Iterator[tuple[FileObject, Path]]:
        """A file and the path that its content is written to; it is there once the block ends without an error.

        name: its id, of one that may have been made before; it takes that one's place. lasts: seconds until it is
        deleted; None for ever.
        """
        file = FileObject(
            id=name or new_id("file-"), owner=owner, bytes=0, created_at=now(), filename=filename[:255], purpose=purpose
        )
        file.expires_at = None if lasts is None else file.created_at + lasts
        path = self.content(file)
        try:
            if name is not None:
                path.unlink(missing_ok=True)
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE))
            yield file, path
            file.bytes = _written(path)
            with self._guard:
                self._numbers += 1
                file.number = self._numbers
                self.files[file.id] = file
            self._keep("files", file)
        except BaseException:
            self.files.pop(file.id, None)
            path.unlink(missing_ok=True)
            raise

    def delete_file(self, file: FileObject) -> bool:
        """Whether it is gone: one that a batch is still to be answered from stays."""
        with self._guard:
            waiting = [batch for batch in self.batches.values() if batch.status not in ENDED]
            if any(batch.input_file_id == file.id for batch in waiting):
                return False
            self.files.pop(file.id, None)
            (self.folder / "files" / f"{file.id}.json").unlink(missing_ok=True)
            self.content(file).unlink(missing_ok=True)
        return True

    def add_batch(self, batch: BatchObject) -> bool:
        """Whether it is there now: its file may have gone meanwhile."""
        with self._guard:
            if batch.input_file_id not in self.files:
                return False
            self._numbers += 1
            batch.number = self._numbers
            self._keep("batches", batch)
            self.batches[batch.id] = batch
        return True

    def all_files(self) -> list[FileObject]:
        with self._guard:
            return [file for file in self.files.values() if not _expired(file)]

    def drop_expired(self) -> None:
        """Delete files whose time has come; one that a batch is still to be answered from, once that has ended."""
        with self._guard:
            late = [file for file in self.files.values() if _expired(file)]
        for file in late:
            self.delete_file(file)

    def all_batches(self) -> list[BatchObject]:
        with self._guard:
            return list(self.batches.values())

    def change(self, batch: BatchObject, how: Callable[[BatchObject], None]) -> None:
        """Change a batch and keep it."""
        with self._guard:
            how(batch)
            self._keep("batches", batch)

    def remove_run(self, name: str) -> None:
        shutil.rmtree(self.run(name), ignore_errors=True)

    def _keep(self, kind: str, found: FileObject | BatchObject) -> None:
        write_atomically(self.folder / kind / f"{found.id}.json", msgspec.json.encode(found))
        _sync(self.folder / kind)

    def _sweep(self) -> None:
        """Contents of uploads that a kill ended."""
        for path in (self.folder / "files").glob("*.content"):
            if not path.with_suffix(".json").exists():
                path.unlink(missing_ok=True)


def _expired(file: FileObject) -> bool:
    return file.expires_at is not None and now() >= file.expires_at


def _written(path: Path) -> int:
    """The size of a content that is on the disk by now. Raises OSError."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size


def _sync(folder: Path) -> None:
    """Names of files are on the disk by now, too; where that cannot be asked for, they are as soon as it likes."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _load(folder: Path, kind: type[_Object]) -> dict[str, _Object]:
    """Objects by id. One that cannot be read costs itself."""
    found: dict[str, _Object] = {}
    for path in sorted(folder.glob("*.json")):
        with contextlib.suppress(OSError, msgspec.DecodeError):
            each = msgspec.json.decode(path.read_bytes(), type=kind)
            found[each.id] = each
    return found
