"""The engine process for the operating system: started before anybody knows its settings, ended with its group."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from blendrun.engine.base import Platform
from blendrun.engine.settings import process_environment
from blendrun.scratch import Scratch

# Bytes. SGLang leaves socket files behind, and a socket's path may have 107.
_LONGEST_TMPDIR = 40
# How long a killed process group may take to vanish; the kernel needs milliseconds, a GPU context some seconds.
REAP_TIMEOUT_S = 30.0


@dataclass(slots=True, frozen=True)
class Child:
    """A process that imports SGLang and then waits for `channel.Configure` on `connection`.

    folder: one of its own for what it and SGLang leave behind. Until it is configured it prints to `early_log`.
    """

    platform: Platform
    threads: int
    process: subprocess.Popen[bytes]
    connection: socket.socket
    folder: Scratch

    @property
    def scratch(self) -> Path:
        return self.folder.path

    @property
    def early_log(self) -> Path:
        return self.scratch / "early.log"

    @property
    def kept_log(self) -> Path:
        """Of one that outlives a job, whose folder may be removed: all that it prints."""
        return self.scratch / "engine.log"

    @property
    def lives(self) -> bool:
        """Whether the process, or one that it started, still runs."""
        return self.process.poll() is None or _group_lives(self.process.pid)

    def kill(self) -> None:
        """End it and all that it started, at once; whoever calls waits for it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def clear(self) -> None:
        """Remove what it left; for one that is gone."""
        self.folder.remove()

    def note_shared(self) -> None:
        """Keep in mind what it and those that it started use of shared memory: a kill leaves that behind."""
        self.folder.note_shared(_group(self.process.pid))

    def end(self) -> None:
        """Kill it, wait until it is gone and clear up."""
        self.connection.close()
        self.kill()
        deadline = time.monotonic() + REAP_TIMEOUT_S
        # An impatient second signal may come while this waits.
        try:
            while self.lives and time.monotonic() < deadline:
                time.sleep(0.005)
        finally:
            self.clear()


def start_child(platform: Platform, threads: int) -> Child:
    """Start an engine process. Raises OSError.

    Call it from the main thread: the kernel ends the process with the thread that started it.
    """
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with contextlib.ExitStack() as on_error, theirs:
        on_error.callback(ours.close)
        short = len(os.fsencode(tempfile.gettempdir())) <= _LONGEST_TMPDIR
        folder = Scratch.make(Path(tempfile.gettempdir() if short else "/tmp"))
        on_error.callback(folder.remove)
        with (folder.path / "early.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "blendrun.engine.worker", str(theirs.fileno()), str(os.getpid())],
                env=os.environ | process_environment(platform, threads) | {"TMPDIR": str(folder.path)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        on_error.pop_all()
    return Child(platform, threads, process, ours, folder)


class EarlyChildren:
    """Engine processes that import SGLang while a job is indexed, tokenised and planned. None before `start`."""

    def __init__(self) -> None:
        self._waiting: list[Child] = []

    def start(self, platform: Platform, threads: int, count: int) -> None:
        """Start so many. A signal may end this: what it has begun, `close` ends."""
        # Too early to complain: the engine that needs one tries again, and says why it cannot be had.
        with contextlib.suppress(OSError):
            for _ in range(count):
                self._waiting.append(start_child(platform, threads))

    def take(self) -> Child | None:
        """One that nobody has yet; None where there is none. Whoever takes it ends it."""
        return self._waiting.pop(0) if self._waiting else None

    def close(self) -> None:
        """End those that nobody wanted."""
        while (child := self.take()) is not None:
            child.end()


def _group_lives(group: int) -> bool:
    """Whether a process of this group still runs; a zombie that nobody has reaped yet does not."""
    return next(_group(group), None) is not None


def _group(group: int) -> Iterator[int]:
    """Its processes, without zombies."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, process_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(process_group) == group and state != "Z":
                yield int(stat.parent.name)
