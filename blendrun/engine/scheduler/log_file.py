"""A file of lines, written in one piece about once a second: a process that is killed leaves whole lines."""

from __future__ import annotations

import atexit
import os
import threading
from pathlib import Path

_FLUSH_SECONDS = 1.0


def torn(path: Path) -> bool:
    """Whether the file ends within a line, as a kill or a full disk leaves it: what comes next must begin a new one."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            if file.tell() == 0:
                return False
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except OSError:
        return False


class LogFile:
    """Appends lines to a file. Several processes may append to one: each piece is one write."""

    def __init__(self, path: Path) -> None:
        """Raises OSError where the file cannot be opened."""
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._torn = torn(path)
        self._lines: list[bytes] = []
        self._lock = threading.Lock()
        self._closed = threading.Event()
        atexit.register(self.flush)
        threading.Thread(target=self._keep_flushing, name="blendrun-log", daemon=True).start()

    def write(self, line: bytes, at_once: bool = False) -> None:
        """Add a line (without its end), and write all there is if `at_once`."""
        self._lines.append(line)
        if at_once:
            self.flush()

    def flush(self) -> None:
        """Write what has come in. A full disk loses lines, never the engine."""
        with self._lock:
            lines, self._lines = self._lines, []
            if not lines:
                return
            piece = b"\n" * self._torn + b"\n".join((*lines, b""))
            try:
                # A disk that fills up takes a part.
                self._torn = os.write(self._descriptor, piece) < len(piece)
            except OSError:
                return

    def close(self) -> None:
        """Write what is left; no more comes."""
        self._closed.set()
        atexit.unregister(self.flush)
        self.flush()
        with self._lock:
            os.close(self._descriptor)

    def _keep_flushing(self) -> None:
        # A thread of its own: an idle scheduler takes no steps.
        while not self._closed.wait(_FLUSH_SECONDS):
            self.flush()
