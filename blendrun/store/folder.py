"""The state folder beside the output: `<output>.blendrun/`, and who may use it."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from filelock import FileLock, Timeout

from blendrun.errors import OutputUnavailableError, UsageError
from blendrun.files import sweep, sweep_folder
from blendrun.store.private_folder import make_private

SUFFIX = ".blendrun"
ERRORS_SUFFIX = ".errors.jsonl"


def path_text(path: str | Path) -> str:
    """A path as valid Unicode, for JSON and messages: a file name need not be."""
    return os.fsencode(path).decode(errors="replace")


def remove(path: Path) -> None:
    """Remove a file that may not be there. Raises OutputUnavailableError."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputUnavailableError(
            f"cannot remove {path}: {error.strerror}; move it away, and the same command goes on"
        ) from error


class StateFolder:
    """Paths of one run's state. Private to the user (0700): answers may be."""

    def __init__(self, output: Path, replica: int = 1) -> None:
        """replica: whose files the engine's log, its steps, estimates and occupancy are; all others are the run's.

        Raises UsageError where `output` names no file (empty, "/", "..", a zero byte)."""
        if output.name in ("", "..") or "\0" in str(output):
            raise UsageError(f"the output {str(output)!r} is no file name; give one with -o")
        self.output = output
        self.replica = replica
        self.path = output.with_name(f"{output.name}{SUFFIX}")

    @classmethod
    def at(cls, folder: Path) -> Self:
        """The one that is at `folder`. Raises UsageError where that cannot be a state folder's name."""
        return cls(folder.with_name(folder.name.removesuffix(SUFFIX)))

    @property
    def errors(self) -> Path:
        """The errors file, beside the output."""
        return self.output.with_name(f"{self.output.name}{ERRORS_SUFFIX}")

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
    def status(self) -> Path:
        return self.path / "status.json"

    def of_replica(self, number: int) -> StateFolder:
        """The same with a replica's own files."""
        return StateFolder(self.output, number)

    def _own(self, stem: str, suffix: str) -> Path:
        number = f".{self.replica}" if self.replica > 1 else ""
        return self.path / f"{stem}{number}{suffix}"

    @property
    def engine_log(self) -> Path:
        return self._own("engine", ".log")

    @property
    def plan(self) -> Path:
        """What was planned and predicted, as `blendrun plan --json` has it."""
        return self.path / "plan.json"

    @property
    def shard(self) -> Path:
        """Rows of the job that are this run's, where it is one of several shards."""
        return self.path / "shard.npz"

    @property
    def records(self) -> Path:
        """Planned and actual of each request."""
        return self.path / "records.jsonl"

    @property
    def partial(self) -> Path:
        """Name of the file that has the answers so far, where one was asked for."""
        return self.path / "partial"

    @property
    def unkept(self) -> Path:
        """Answers that do not keep their form."""
        return self.path / "unkept.jsonl"

    @property
    def cut_short(self) -> Path:
        """Answers that ended at their token limit, and where their requests are."""
        return self.path / "cut-short.jsonl"

    @property
    def steps(self) -> Path:
        """The engine's log of its steps."""
        return self._own("steps", ".jsonl")

    @property
    def all_steps(self) -> list[Path]:
        """The step logs of all replicas that have one, in their order."""
        found = [(self.path / "steps.jsonl", 1)]
        found += [(path, int(path.name.split(".")[1])) for path in self.path.glob("steps.[0-9]*.jsonl")]
        return [path for path, _ in sorted(found, key=lambda each: each[1]) if path.exists()]

    @property
    def estimates(self) -> Path:
        """Expected lengths, corrected while the engine has the requests."""
        return self._own("estimates", "")

    @property
    def occupancy(self) -> Path:
        """What runs in the engine, by its own word."""
        return self._own("occupancy", "")

    @property
    def spool(self) -> Path:
        """Inputs that cannot be read at any place (compressed, stdin), unpacked."""
        return self.path / "spool"

    @property
    def lines(self) -> Path:
        """What the lines of the input were (`jobs.lines_read`)."""
        return self.path / "lines"

    @property
    def merged(self) -> Path:
        """What a merge of shards has written."""
        return self.path / "merged.json"

    @property
    def uploads(self) -> Path:
        """What was sent to addresses."""
        return self.path / "uploads.json"

    @property
    def parts(self) -> Path:
        """Passing names of files that are being written elsewhere."""
        return self.path / "parts"

    @property
    def used(self) -> bool:
        """Whether there are answers of a run, or of a merge, under this output's name."""
        return self.begun or self.merged.exists()

    @property
    def begun(self) -> bool:
        """Whether a run has left anything to resume here."""
        return self.manifest.exists() or self.journal.exists()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder and hold its lock. Raises OutputUnavailableError if it cannot be made or is held."""
        try:
            make_private(self.path, "a run's state")
            lock = FileLock(self.path / "lock", timeout=0, mode=0o600)
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
            sweep(self.parts)
            sweep_folder(self.path)
            yield
        finally:
            sweep(self.parts)
            # What is held goes with the process at the latest.
            with suppress(OSError):
                lock.release()

    def clear(self, *, keep: Collection[Path] = ()) -> None:
        """Forget the run (`--no-resume`), except for spooled inputs in `keep`. The lock stays held.

        The manifest stays until the new run writes its own: it knows which files beside it are the run's.

        Raises OutputUnavailableError for a file that cannot be removed.
        """
        replicas = [
            path for name in ("engine", "steps", "estimates", "occupancy") for path in self.path.glob(f"{name}.[0-9]*")
        ]
        # Of data-parallel ranks behind the first.
        replicas += self.path.glob("*-steps*.jsonl")
        # What was fetched stays: whether it is still what is at its address was just looked at.
        spooled = [path for path in self.spool.glob("*") if path not in keep and not path.is_dir()]
        for path in (
            self.summary,
            self.status,
            self.engine_log,
            self.plan,
            self.shard,
            self.lines,
            self.uploads,
            self.records,
            self.unkept,
            self.cut_short,
            self.steps,
            self.estimates,
            self.occupancy,
            *replicas,
            *spooled,
            self.journal,
        ):
            remove(path)
