"""The folder that is a server's whole memory: a JSON file for each object, and the contents of files beside them.

STORE/files/ID.json, ID.content; STORE/batches/ID.json; STORE/runs/ID/ (the state of a run, `desk`); STORE/key.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
from filelock import FileLock, Timeout

from blendrun.errors import OutputUnavailableError, unwritable
from blendrun.files import PRIVATE, sweep_folder, write_atomically
from blendrun.service.objects import ENDED, BatchObject, FileObject, new_id, now
from blendrun.store.private_folder import make_private

_FOLDERS = ("files", "batches", "runs")
# And what file systems put into the topmost folder of a disk.
_NAMES = {*_FOLDERS, "lock", "key", "lost+found"}
# As `new_id` makes them: what is removed whole is never a path that a file on disk names.
_RUN = re.compile(r"run-[0-9a-f]{32}")

_Object = TypeVar("_Object", FileObject, BatchObject)


class Store:
    """Objects by id; each belongs to a key, and another key does not see it. Safe from several threads."""

    def __init__(self, folder: Path) -> None:
        """Raises OutputUnavailableError where it cannot be used, or another server uses it."""
        self.folder = folder
        self._guard = threading.RLock()
        try:
            _refuse_other_folder(folder)
            make_private(folder, "a server's store")
            for name in _FOLDERS:
                make_private(folder / name, "a server's store")
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
        """The folder of a run. Raises FileNotFoundError for a name that is none: it might lead out of the store."""
        if not _RUN.fullmatch(name):
            raise FileNotFoundError(errno.ENOENT, "no run has such a name", name)
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
        """Change a batch and keep it. What cannot be kept has not been changed: another server would not know of it."""
        with self._guard:
            before = {name: getattr(batch, name) for name in batch.__struct_fields__}
            how(batch)
            try:
                self._keep("batches", batch)
            except BaseException:
                for name, value in before.items():
                    setattr(batch, name, value)
                raise

    def remove_run(self, name: str) -> None:
        """With all that is in its folder. A name that leads anywhere else removes nothing."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.run(name), ignore_errors=True)

    def _keep(self, kind: str, found: FileObject | BatchObject) -> None:
        write_atomically(self.folder / kind / f"{found.id}.json", msgspec.json.encode(found))
        _sync(self.folder / kind)

    def _sweep(self) -> None:
        """What a kill has left of files that were being written, contents of uploads among them."""
        for folder in (self.folder, *(self.folder / name for name in _FOLDERS)):
            sweep_folder(folder)
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


def _refuse_other_folder(folder: Path) -> None:
    """Refuse a folder that holds something else: it would be closed to others, and tidied up. Raises OSError."""
    try:
        names = {path.name for path in folder.iterdir()}
    except FileNotFoundError:
        return
    if any(name not in _NAMES and not name.startswith(".blendrun-") for name in names):
        raise OSError(errno.EEXIST, "it holds other files, and a store is a folder of its own; give another --store")


def _load(folder: Path, kind: type[_Object]) -> dict[str, _Object]:
    """Objects by id. One that cannot be read costs itself."""
    found: dict[str, _Object] = {}
    for path in sorted(folder.glob("*.json")):
        with contextlib.suppress(OSError, msgspec.DecodeError):
            each = msgspec.json.decode(path.read_bytes(), type=kind)
            if each.id == path.stem:
                found[each.id] = each
    return found
