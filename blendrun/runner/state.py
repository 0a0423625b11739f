"""The state folder beside the output: `<output>.blendrun/`, and who may use it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from blendrun.errors import OutputUnavailableError


class StateFolder:
    """Paths of one run's state. Private to the user (0700): answers may be."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.path = output.with_name(f"{output.name}.blendrun")

    @property
    def errors(self) -> Path:
        """The errors file, beside the output."""
        return self.output.with_name(f"{self.output.name}.errors.jsonl")

    @property
    def journal(self) -> Path:
        return self.path / "journal"

    @property
    def manifest(self) -> Path:
        return self.path / "manifest.json"

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"

    @property
    def engine_log(self) -> Path:
        return self.path / "engine.log"

    @property
    def spool(self) -> Path:
        """Inputs that cannot be read at any place (compressed, stdin), unpacked."""
        return self.path / "spool"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder and hold its lock. Raises OutputUnavailableError if it cannot be made or is held."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = FileLock(self.path / "lock", timeout=0)
            lock.acquire()
        except Timeout:
            raise OutputUnavailableError(
                f"another run is writing {self.output} (it holds {self.path / 'lock'}); wait for it, or give another -o"
            ) from None
        except OSError as error:
            raise OutputUnavailableError(
                f"cannot write {self.path}: {error.strerror}; give an output in a folder that can be written, with -o"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def clear(self) -> None:
        """Forget the run (`--no-resume`). The lock stays held."""
        for path in (self.journal, self.manifest, self.summary, self.engine_log):
            path.unlink(missing_ok=True)
