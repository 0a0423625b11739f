"""`--partial FILE`: the answers so far, whole lines, while a run works: what `blendrun answers` would print."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

from blendrun.errors import BlendrunError, UsageError
from blendrun.files import file_mode, replacing, write_atomically, written_through
from blendrun.store.folder import StateFolder
from blendrun.store.guard import Target
from blendrun.store.journal_tail import JournalTail

_SECONDS = 1.0
_PIECE_BYTES = 1 << 20


def partial_target(path: Path, state: StateFolder, inputs: tuple[Path, ...], *, overwrite: bool) -> Target:
    """The file to write. One that this run has made may be made anew; the run's state knows which that is."""
    own = (*inputs, state.path, state.output, state.errors)
    return Target(path, "--partial", own, lambda target: _made(state, target), overwrite)


def _made(state: StateFolder, target: Path) -> bool:
    try:
        return state.partial.read_bytes() == _name(target)
    except OSError:
        return False


def _name(path: Path) -> bytes:
    return os.fsencode(os.path.realpath(path))


class PartialFile:
    """Begun anew with what the journal has, then grown about once a second. What cannot be written costs this file."""

    def __init__(self, target: Target, state: StateFolder) -> None:
        """Raises UsageError, OutputUnavailableError, OSError."""
        self._tail, self._written = JournalTail(state.journal), 0.0
        self._file = -1
        target.check()
        if not target.file:
            raise UsageError(f"--partial {target.path} is no file; `blendrun answers --follow` prints the answers")
        path = written_through(target.path)
        made = self._begin(path, state)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        if not os.path.samestat(made, os.fstat(self._file)):
            self._close()
            raise OSError(errno.EPERM, "somebody else replaces files in that folder")

    def _begin(self, path: Path, state: StateFolder) -> os.stat_result:
        """Write what the journal has, and note that it is this run's. Returns what tells the file. Raises as above."""
        noted, made = _made(state, path), None
        # First: a file that is there and in no note would be somebody's to the next run.
        if not noted:
            write_atomically(state.partial, _name(path))
        try:
            with replacing(path, file_mode(path), state.parts) as file:
                for line in self._tail.new():
                    file.write(line + b"\n")
                made = os.fstat(file.fileno())
        except (OSError, BlendrunError):
            if not (noted or (made and path.exists() and os.path.samestat(made, path.stat()))):
                state.partial.unlink(missing_ok=True)
            raise
        return made

    def grow(self, *, last: bool = False) -> str | None:
        """Add what has come since. last: now, and close. Returns what went wrong, once."""
        now = time.monotonic()
        if self._file < 0 or not (last or now - self._written >= _SECONDS):
            return None
        self._written = now
        try:
            self._add()
        except (OSError, BlendrunError) as error:
            self._close()
            return f"--partial is not written any more: {error}"
        if last:
            self._close()
        return None

    def _add(self) -> None:
        data = bytearray()
        for line in self._tail.new():
            data += line
            data += b"\n"
            if len(data) >= _PIECE_BYTES:
                self._write(data)
                data = bytearray()
        self._write(data)

    def _write(self, data: bytearray) -> None:
        done = 0
        while done < len(data):
            done += os.write(self._file, memoryview(data)[done:])

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
